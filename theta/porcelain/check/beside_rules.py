"""Rules on what is beside a checkpoint: its index, its metadata, the licence, pickles, the tokenizer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from theta.errors import FormatError
from theta.formats import sharded
from theta.porcelain.check.findings import BrokenRule
from theta.porcelain.check.form_rules import Surroundings
from theta.porcelain.check.version_files import VersionFiles

_LICENCES: Final = re.compile(r"(?i)^(?:licen[cs]e|copying|notice)(?:\..*)?$")
_CARD: Final = re.compile(r"^license:\s*(\S.*?)\s*$", re.MULTILINE)
_CARD_NAME: Final = "README.md"
_HEAD: Final = 64 << 10


def surroundings(version: VersionFiles, path: str) -> Surroundings:
    """Read ``config.json`` and the lists of tokens beside a checkpoint; what is no JSON counts as none."""
    folder = path.rpartition("/")[0]
    config = _json(version.read(_joined(folder, "config.json")))
    found = {file: last(version.read(_joined(folder, file))) for file, last in TOKEN_FILES.items()}
    return Surroundings(config, {file: last for file, last in found.items() if last is not None})


def _joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _json(content: bytes | None) -> Mapping[str, Any]:
    try:
        found = json.loads(content) if content is not None else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _last_token(content: bytes | None) -> int | None:
    """Return the highest id of a ``tokenizer.json``: of its model's vocabulary and of added tokens."""
    tokenizer = _json(content)
    model = tokenizer.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    ids = []
    if isinstance(vocabulary, dict):
        ids = [one for one in vocabulary.values() if isinstance(one, int)]
    elif isinstance(vocabulary, list):
        ids = [len(vocabulary) - 1]
    added = tokenizer.get("added_tokens")
    for token in added if isinstance(added, list) else ():
        if isinstance(token, dict) and isinstance(token.get("id"), int):
            ids.append(token["id"])
    return max(ids, default=None)


def _last_value(content: bytes | None) -> int | None:
    """Return the highest id of a ``vocab.json`` or ``added_tokens.json``: an object of ids by token."""
    return max((one for one in _json(content).values() if isinstance(one, int)), default=None)


def _last_line(content: bytes | None) -> int | None:
    """Return the number, from 0, of the last line of a ``vocab.txt`` that is not empty."""
    text = (content or b"").rstrip()
    return text.count(b"\n") if text else None


TOKEN_FILES: Final[Mapping[str, Callable[[bytes | None], int | None]]] = {
    "tokenizer.json": _last_token,
    "vocab.json": _last_value,
    "added_tokens.json": _last_value,
    "vocab.txt": _last_line,
}
"""Files that give tokens their ids, as the tokenizers of Hugging Face's transformers read them."""


def metadata(path: str, now: Mapping[str, str], before: Mapping[str, str]) -> Iterator[BrokenRule]:
    """Yield entries of the metadata that were lost."""
    for key in sorted(before.keys() - now.keys()):
        yield BrokenRule("metadata", path, "", f"the metadata no longer have {key[:80]!a}")


def licence(path: str, now: VersionFiles, before: VersionFiles) -> Iterator[BrokenRule]:
    """Yield a licence beside the checkpoint, or named by its model card, that was lost."""
    folder = path.rpartition("/")[0]
    kept = set(now.names(folder))
    for name in before.names(folder):
        if _LICENCES.match(name) and name not in kept:
            yield BrokenRule("licence", path, "", f"{_joined(folder, name)} is gone")
    card = _joined(folder, _CARD_NAME)
    was, is_now = (_card_licence(version.read(card)) for version in (before, now))
    if was is not None and is_now is None:
        yield BrokenRule("licence", path, "", f"{card} no longer names the licence {was[:80]!a}")


def _card_licence(content: bytes | None) -> str | None:
    """Return the licence in the front matter of a model card."""
    text = (content or b"")[:_HEAD].decode("utf-8", "replace")
    if not text.startswith("---"):
        return None
    found = _CARD.search(text.partition("---")[2].partition("\n---")[0])
    return found[1] if found else None


def pickles(path: str, version: VersionFiles) -> Iterator[BrokenRule]:
    """Yield what is dangerous to load."""
    for file in version.files(path):
        for one in version.pickles(file).findings:
            if one.verdict == "dangerous":
                name = f"{one.module}.{one.name}"
                yield BrokenRule("pickle", path, "", f"loading {file} would call {name[:120]!a}")


def shards(path: str, version: VersionFiles) -> Iterator[BrokenRule]:
    """Yield shards that are missing, by their own numbers or by the index."""
    folder, _, name = path.rpartition("/")
    files = {file.rpartition("/")[2] for file in version.files(path)}
    numbered = [parts for file in files if (parts := sharded.parse_shard_name(file)) is not None]
    for parts in numbered[:1]:
        have = {one.number for one in numbered}
        missing = sorted(set(range(1, parts.count + 1)) - have)
        if missing:
            yield BrokenRule(
                "shards", path, "", f"{len(missing)} of {parts.count} shards are missing: {missing[:5]}"
            )
    content = version.read(_joined(folder, name + sharded.SUFFIX))
    if content is None:
        return
    try:
        index = sharded.read_index(content)
    except FormatError as error:
        yield BrokenRule("shards", path, "", str(error))
        return
    for shard in index.shards:
        if shard not in files:
            yield BrokenRule("shards", path, "", f"the index names {shard}, which is not there")
