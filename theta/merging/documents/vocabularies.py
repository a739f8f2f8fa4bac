"""The vocabulary of a result: its tokens, and from which rows of each model theirs are taken.

Tokenizers are those of ``tokenizer.json``.  A union has the tokens of the first model under their ids, then
those of the others by model and id, as added tokens.  A token that a model lacks gets the row of the only
model that has it, or that of the base, or the mean of all that have it; zeros if none has it.  This is what
mergekit 0.1.5 does, whose ids of new tokens differ from run to run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from theta.errors import UsageError
from theta.merging.documents import result_texts
from theta.merging.documents.model_files import OF_TOKENIZER, TOKENIZER, ModelFiles
from theta.merging.documents.tokenizer_files import TokenizerFile, shown
from theta.merging.documents.tokenizer_keys import BASE, UNION, TokenizerKey, TokenSource

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
        terms: a row that a model lacks is a combination of so many of its own; 0 takes another model's.
    """

    ids: Mapping[str, int]
    rows: Mapping[str, Sequence[int]]
    sources: Mapping[int, TokenSource]
    multiple: int
    base: str | None
    sizes: Mapping[str, int | None]
    texts: Mapping[str, bytes]
    terms: int = 0

    @property
    def count(self) -> int:
        """The number of ids."""
        return max(self.ids.values(), default=-1) + 1

    @property
    def padded(self) -> int:
        """The number of rows of the result."""
        return -(-self.count // self.multiple) * self.multiple


def build(key: TokenizerKey, models: Mapping[str, ModelFiles], base: str | None) -> Vocabulary:
    """Return the vocabulary of a result of ``models``, the first of which has the configuration.

    Raises :class:`UsageError` for tokenizers that cannot be read, and tokens that are not there.
    """
    first = next(iter(models))
    files = {name: TokenizerFile(model) for name, model in models.items()}
    origin = files[first if key.source in (UNION, BASE) else key.source]
    if key.source in (UNION, BASE):
        made = _Growing(origin.stripped(), dict(origin.by_id))
    else:
        made = _Growing(origin.copied(), dict(origin.ids))
    found, ids = made.json, made.ids
    before = set(ids)
    if key.source == UNION:
        made.unite(files.values())
    for token in key.tokens:
        made.add(token)
    _check_count(ids, key, files)
    rows = {name: _rows(ids, file) for name, file in files.items()}
    sources = dict(_sources(key, ids, files))
    new = [token for token in ids if token not in before]
    texts = _texts(origin.model, found, {token: ids[token] for token in new})
    sizes = {name: file.rows for name, file in files.items()}
    return Vocabulary(ids, rows, sources, key.multiple, base, sizes, texts, key.terms)


class _Growing:
    """A tokenizer that gets tokens, each after the last one.

    Args:
        json: its JSON, whose list of added tokens is changed.
        ids: token -> id.
    """

    def __init__(self, json: dict[str, Any], ids: dict[str, int]) -> None:
        self.json, self.ids = json, ids
        self._next = max(ids.values(), default=-1) + 1
        self._added = {one["content"] for one in json.get("added_tokens", ())}

    def unite(self, files: Iterable[TokenizerFile]) -> None:
        """Add the tokens of all models, plain ones first."""
        files = list(files)
        for file in files:
            added = {one["content"] for one in file.added}
            for token, _ in file.by_id:
                if token not in added:
                    self.add(token)
        for file in files:
            for one in sorted(file.added, key=lambda one: int(one["id"])):
                if file.has_row(one["id"]):
                    self.add(one["content"], one)

    def add(self, token: str, like: Mapping[str, Any] | None = None) -> None:
        """Add ``token`` as an added token with the properties of ``like``, unless it is there."""
        if token in (self._added if like else self.ids):
            return
        if token not in self.ids:
            self.ids[token], self._next = self._next, self._next + 1
        plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
        entry = {"id": self.ids[token], "content": token, **plain}
        entry |= {name: value for name, value in (like or {}).items() if name in plain}
        self.json.setdefault("added_tokens", []).append(entry)
        self._added.add(token)


def _check_count(ids: Mapping[str, int], key: TokenizerKey, files: Mapping[str, TokenizerFile]) -> None:
    """Refuse more ids than all models have rows, before a row is made for each."""
    most = sum(file.most for file in files.values()) + len(key.tokens)
    last = max(ids.values(), default=-1)
    if last >= most:
        token = next(token for token, number in ids.items() if number == last)
        raise UsageError(
            f"token {shown(token)} has the id {shown(last)}, and all models together {most} rows"
        )


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
            told = token if one.token is None else one.token
            raise UsageError(f"{file.model.label} has no row for {shown(told)}")
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
