"""The vocabulary of a result: its tokens, and from which rows of each model theirs are taken.

Tokenizers are those of ``tokenizer.json``.  A union has the tokens of the first model under their ids, then
those of the others by model and id, as added tokens.  A token that a model lacks gets the row of the only
model that has it, or that of the base, or the mean of all that have it; zeros if none has it.  This is what
mergekit 0.1.5 does, whose ids of new tokens differ from run to run.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from theta.errors import UsageError
from theta.lazy import lazy
from theta.merging.documents import result_texts
from theta.merging.documents.model_files import EMBEDDING, HEAD, OF_TOKENIZER, TOKENIZER, ModelFiles
from theta.merging.documents.tokenizer_keys import BASE, UNION, TokenizerKey, TokenSource

_MOST_TOKENS: Final = 1 << 24


class TokenizerFile:
    """The ``tokenizer.json`` of a model.

    Raises :class:`UsageError` if it has none, or one of another form.
    """

    def __init__(self, model: ModelFiles) -> None:
        self.model = model
        found = result_texts.parsed(model, TOKENIZER)
        if found is None:
            raise UsageError(
                f"{model.label} has no {model.folder}{TOKENIZER}", hint="commit it beside the model"
            )
        self.json = found
        config = result_texts.parsed(model) or {}
        told = config.get("vocab_size", (config.get("text_config") or {}).get("vocab_size"))
        self.rows = told if type(told) is int else None
        """The number of rows of the embedding, or None if ``config.json`` does not tell."""
        try:
            self.added: list[dict[str, Any]] = list(found.get("added_tokens") or ())
            inner = found["model"]["vocab"]
            pairs = (
                inner.items() if isinstance(inner, dict) else ((one[0], at) for at, one in enumerate(inner))
            )
            ids = {str(token): number for token, number in pairs}
            ids |= {str(one["content"]): one["id"] for one in self.added}
        except (KeyError, TypeError, IndexError) as error:
            raise UsageError(f"{model.folder}{TOKENIZER} of {model.label} has no vocabulary") from error
        if any(
            type(number) is not int or not 0 <= number < _MOST_TOKENS for number in ids.values()
        ) or not all(isinstance(one["content"], str) for one in self.added):
            raise UsageError(f"{model.folder}{TOKENIZER} of {model.label} has tokens or ids that are none")
        self.ids: dict[str, int] = ids
        """Token -> id."""

    @lazy
    def by_id(self) -> list[tuple[str, int]]:
        """The tokens that the embedding has rows for, in order of their ids."""
        pairs = ((token, number) for token, number in self.ids.items() if self.has_row(number))
        return sorted(pairs, key=lambda pair: (pair[1], pair[0]))

    def has_row(self, number: int) -> bool:
        """Return whether the embedding has a row for token ``number``."""
        return self.rows is None or number < self.rows

    def row(self, token: str) -> int:
        """Return the row of ``token``; -1 if it has none."""
        number = self.ids.get(token, -1)
        return number if number >= 0 and self.has_row(number) else -1

    def stripped(self) -> dict[str, Any]:
        """Return the JSON without tokens that have no row; raises :class:`UsageError` unless it is of BPE."""
        found: dict[str, Any] = copy.deepcopy(self.json)
        gone = {token for token, number in self.ids.items() if not self.has_row(number)}
        if not gone:
            return found
        inner = found["model"]
        if inner.get("type") != "BPE" or not isinstance(inner["vocab"], dict):
            told = f"{self.model.label} has tokens without rows"
            raise UsageError(f"{told}, and its tokenizer is {inner.get('type')}, not BPE")
        found["added_tokens"] = [one for one in self.added if one["content"] not in gone]
        inner["vocab"] = {token: number for token, number in inner["vocab"].items() if token not in gone}
        inner["merges"] = [one for one in inner.get("merges") or () if gone.isdisjoint(_pair(one))]
        return found


def _pair(merge: Any) -> Sequence[str]:
    return merge.split(" ") if isinstance(merge, str) else [str(part) for part in merge]


# -- the result ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a result, and the rows that they have in each model.

    Attributes:
        ids: token -> id.
        rows: name of a model -> for each id its row there, or -1.
        sources: the ids of tokens that some model lacks, or that the recipe names -> where from.
        multiple: the number of rows is padded to a multiple of this.
        base: the base of the recipe, or None.
        sizes: name of a model -> the number of rows that its configuration tells, or None.
        texts: name of a file -> its bytes, of the new tokenizer.
    """

    ids: Mapping[str, int]
    rows: Mapping[str, Sequence[int]]
    sources: Mapping[int, TokenSource]
    multiple: int
    base: str | None
    sizes: Mapping[str, int | None]
    texts: Mapping[str, bytes]

    @property
    def count(self) -> int:
        """The number of ids."""
        return max(self.ids.values(), default=-1) + 1

    @property
    def padded(self) -> int:
        """The number of rows of the result."""
        return -(-self.count // self.multiple) * self.multiple


def is_of_tokens(name: str) -> bool:
    """Return whether tensor ``name`` has a row for each token."""
    return bool(EMBEDDING.fullmatch(name) or HEAD.fullmatch(name.removesuffix(".bias")))


def build(key: TokenizerKey, models: Mapping[str, ModelFiles], base: str | None) -> Vocabulary:
    """Return the vocabulary of a result of ``models``, the first of which has the configuration.

    Raises :class:`UsageError` for tokenizers that cannot be read, and tokens that are not there.
    """
    first = next(iter(models))
    files = {name: TokenizerFile(model) for name, model in models.items()}
    origin = files[first if key.source in (UNION, BASE) else key.source]
    if key.source in (UNION, BASE):
        found, ids = origin.stripped(), dict(origin.by_id)
    else:
        found, ids = copy.deepcopy(origin.json), dict(origin.ids)
    before = set(ids)
    if key.source == UNION:
        _unite(found, ids, files)
    for token in key.tokens:
        _add(found, ids, token)
    rows = {name: _rows(ids, file) for name, file in files.items()}
    sources = dict(_sources(key, ids, files))
    new = [token for token in ids if token not in before]
    texts = _texts(origin.model, found, {token: ids[token] for token in new})
    sizes = {name: file.rows for name, file in files.items()}
    return Vocabulary(ids, rows, sources, key.multiple, base, sizes, texts)


def _unite(found: dict[str, Any], ids: dict[str, int], files: Mapping[str, TokenizerFile]) -> None:
    """Add the tokens of all models, plain ones first, to a tokenizer."""
    for file in files.values():
        added = {one["content"] for one in file.added}
        for token, _ in file.by_id:
            if token not in added:
                _add(found, ids, token)
    for file in files.values():
        for one in sorted(file.added, key=lambda one: int(one["id"])):
            if file.has_row(one["id"]):
                _add(found, ids, one["content"], one)


def _add(
    found: dict[str, Any], ids: dict[str, int], token: str, like: Mapping[str, Any] | None = None
) -> None:
    """Add ``token`` to a tokenizer as an added token with the properties of ``like``, unless it is there."""
    known = any(one["content"] == token for one in found.get("added_tokens") or ()) if like else token in ids
    if known:
        return
    number = ids.setdefault(token, max(ids.values(), default=-1) + 1)
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
    entry = {"id": number, "content": token, **plain}
    entry |= {name: value for name, value in (like or {}).items() if name in plain}
    found.setdefault("added_tokens", []).append(entry)


def _rows(ids: Mapping[str, int], file: TokenizerFile) -> list[int]:
    rows = [-1] * (max(ids.values(), default=-1) + 1)
    for token, number in ids.items():
        rows[number] = file.row(token)
    return rows


def _sources(
    key: TokenizerKey, ids: Mapping[str, int], files: Mapping[str, TokenizerFile]
) -> Iterator[tuple[int, TokenSource]]:
    for token, one in key.tokens.items():
        if one.is_open:
            continue
        if one.model is None:
            yield ids[token], one
            continue
        file = files[one.model]
        row = one.token if isinstance(one.token, int) else file.row(token if one.token is None else one.token)
        if row < 0 or not file.has_row(row):
            raise UsageError(f"{file.model.label} has no row for {one.token or token!r}")
        yield ids[token], TokenSource(one.model, row, one.force)


# -- the files -------------------------------------------------------------------------------


def _texts(model: ModelFiles, found: Mapping[str, Any], new: Mapping[str, int]) -> dict[str, bytes]:
    """Return the files of a tokenizer that is that of ``model`` with the tokens ``new``."""
    names = [name for name in model.texts if name in OF_TOKENIZER]
    texts = {name: model.texts[name] for name in names}
    texts[TOKENIZER] = result_texts.written(found)
    if new and "added_tokens.json" in texts:
        known = result_texts.parsed(model, "added_tokens.json") or {}
        texts["added_tokens.json"] = result_texts.written({**known, **new})
    config = result_texts.parsed(model, "tokenizer_config.json")
    if new and config is not None and isinstance(config.get("added_tokens_decoder"), dict):
        entries = {one["content"]: one for one in found["added_tokens"]}
        config["added_tokens_decoder"] |= {
            str(number): _entry(entries[token]) for token, number in new.items()
        }
        texts["tokenizer_config.json"] = result_texts.written(config)
    return texts


def _entry(added: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in added.items() if name != "id"}
