"""The ``tokenizer.json`` of a model, checked before anything is made of it.

It is read from a commit, so that its shape, its ids and their number are those of a stranger.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from theta.errors import UsageError
from theta.lazy import lazy
from theta.merging.documents import result_texts
from theta.merging.documents.model_files import CONFIG, TOKENIZER, ModelFiles, is_of_tokens

_MOST_UNUSED: Final = 1 << 16
"""Ids without a token, where no tensor tells how many rows there are."""
_SHOWN: Final = 40


class TokenizerFile:
    """The ``tokenizer.json`` of a model.

    Raises :class:`UsageError` if it has none, or one of another form.  With ``aliases`` several tokens may
    have one id.
    """

    def __init__(self, model: ModelFiles, *, aliases: bool = False) -> None:
        self.model = model
        self._aliases = aliases
        found = result_texts.parsed(model, TOKENIZER)
        if found is None:
            raise UsageError(
                f"{model.label} has no {model.folder}{TOKENIZER}", hint="commit it beside the model"
            )
        self.rows = _rows(model)
        """The number of rows of the embedding, or None if neither ``config.json`` nor a tensor tells."""
        self.added: list[dict[str, Any]] = list(self._added(found.get("added_tokens")))
        self.json = {**found, **({"added_tokens": self.added} if "added_tokens" in found else {})}
        self.ids: dict[str, int] = self._ids(found.get("model"))
        """Token -> id."""
        self._check()

    def _fail(self, why: str) -> UsageError:
        return UsageError(f"{self.model.folder}{TOKENIZER} of {self.model.label} {why}")

    def _added(self, found: Any) -> Iterator[dict[str, Any]]:
        """Yield the added tokens, of which each has an id and a text."""
        if found is not None and not isinstance(found, list):
            raise self._fail("has added_tokens that are no list")
        for one in found or ():
            if (
                not isinstance(one, dict)
                or not isinstance(one.get("content"), str)
                or type(one.get("id")) is not int
            ):
                raise self._fail("has tokens or ids that are none, among its added_tokens")
            yield one

    def _ids(self, found: Any) -> dict[str, int]:
        inner = found.get("vocab") if isinstance(found, dict) else None
        if isinstance(inner, dict):
            ids = dict(inner)
        elif isinstance(inner, list):
            if not all(isinstance(one, list) and one and isinstance(one[0], str) for one in inner):
                raise self._fail("has tokens or ids that are none")
            ids = {one[0]: number for number, one in enumerate(inner)}
        else:
            raise self._fail("has no vocabulary")
        self._check_merges(found.get("merges"))
        return ids | {one["content"]: one["id"] for one in self.added}

    def _check_merges(self, merges: Any) -> None:
        if merges is None:
            return
        if not isinstance(merges, list) or not all(
            isinstance(one, str) or (isinstance(one, list) and all(isinstance(part, str) for part in one))
            for one in merges
        ):
            raise self._fail("has merges that are no pairs of tokens")

    def _check(self) -> None:
        """Refuse ids that are none, or that several tokens have, or that are far beyond all tokens."""
        if any(type(number) is not int or number < 0 for number in self.ids.values()):
            raise self._fail("has tokens or ids that are none")
        owners: dict[int, str] = {}
        for token, number in self.ids.items():
            if owners.setdefault(number, token) != token and not self._aliases:
                pair = f"{shown(owners[number])} and {shown(token)}"
                raise self._fail(f"gives two tokens one id: {pair} have {number}")
        last = max(owners, default=-1)
        if self.rows is None and last >= len(self.ids) + _MOST_UNUSED:
            told = f"has {len(self.ids)} tokens, and gives {shown(owners[last])} the id {shown(last)}"
            raise self._fail(told)

    @lazy
    def by_id(self) -> list[tuple[str, int]]:
        """The tokens that the embedding has rows for, in order of their ids."""
        pairs = ((token, number) for token, number in self.ids.items() if self.has_row(number))
        return sorted(pairs, key=lambda pair: (pair[1], pair[0]))

    @property
    def most(self) -> int:
        """The most rows that tokens of this model have."""
        return self.rows if self.rows is not None else max(self.ids.values(), default=-1) + 1

    def has_row(self, number: int) -> bool:
        """Return whether the embedding has a row for token ``number``."""
        return self.rows is None or number < self.rows

    def row(self, token: str) -> int:
        """Return the row of ``token``; -1 if it has none."""
        number = self.ids.get(token, -1)
        return number if number >= 0 and self.has_row(number) else -1

    def copied(self) -> dict[str, Any]:
        """Return the JSON, of which lists of tokens may be changed."""
        added = {"added_tokens": list(self.added)} if "added_tokens" in self.json else {}
        return {**self.json, **added, "model": dict(self.json["model"])}

    def stripped(self) -> dict[str, Any]:
        """Return the JSON without tokens that have no row; raises :class:`UsageError` unless it is of BPE."""
        found = self.copied()
        gone = {token for token, number in self.ids.items() if not self.has_row(number)}
        if not gone:
            return found
        inner = found["model"]
        if inner.get("type") != "BPE" or not isinstance(inner["vocab"], dict):
            told = f"{self.model.label} has tokens without rows"
            raise UsageError(f"{told}, and its tokenizer is {shown(inner.get('type'))}, not BPE")
        found["added_tokens"] = [one for one in self.added if one["content"] not in gone]
        inner["vocab"] = {token: number for token, number in inner["vocab"].items() if token not in gone}
        inner["merges"] = [one for one in inner.get("merges") or () if gone.isdisjoint(_pair(one))]
        return found


def shown(found: object) -> str:
    """Return what a file has, short and without characters that a terminal would act on."""
    text = repr(found) if isinstance(found, str) else ascii(found)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _pair(merge: Any) -> Sequence[str]:
    return merge.split(" ") if isinstance(merge, str) else [str(part) for part in merge]


def _rows(model: ModelFiles) -> int | None:
    """Return the number of rows that tokens have, by ``config.json`` or the embedding and the head."""
    told = result_texts.rows(result_texts.parsed(model) or {})
    there = [line.shape[0] for name, line in model.lines.items() if line.shape and is_of_tokens(name)]
    if told is None:
        return max(there, default=None)
    if there and told > max(there):
        why = f"has vocab_size {shown(told)}, and the model {max(there)} rows"
        raise UsageError(f"{model.folder}{CONFIG} of {model.label} {why}")
    return told
