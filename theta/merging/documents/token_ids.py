"""Ids of tokens that the files beside a model name: they follow when a merge gives tokens other ids.

``eos_token_id`` of a configuration, the keys of ``added_tokens_decoder``, and the template of a tokenizer
name tokens by their ids in that version.  Here each such id becomes the token, the versions are merged
three-way key by key, and the tokens become ids of the result.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from theta.errors import UsageError
from theta.merging.documents import result_texts
from theta.merging.documents.model_files import CONFIG, TOKENIZER

DECODER: Final = "added_tokens_decoder"
"""The key of a table whose keys are ids."""
NAMING: Final = (
    CONFIG,
    "generation_config.json",
    "tokenizer_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "adapter_config.json",
)
"""The files that may name ids of tokens, besides vocabularies."""
ABSENT: Final = object()
"""The value of a key in a version without it."""

_KEYS: Final = re.compile(
    r"(.*_)?(token|tok)_(ids?|index|indices|idx)|(.*_)?(bos|eos|pad|unk|sep|cls|mask)_(ids?|idx|index)"
    r"|(begin_)?suppress_tokens|bad_words_ids|force_words_ids|forced_decoder_ids|sequence_bias"
    r"|(lang|task|lang_code)_to_id"
)
"""Keys of an id, or of any lists and tables of ids."""
_PAIRS: Final = {"forced_decoder_ids": 1, "sequence_bias": 0}
"""Keys of pairs, and which of the two is an id, or has ids."""
_MOST_DIGITS: Final = 9


@dataclass(frozen=True)
class TokenId:
    """A place that names ``token`` by its id; None for a ``number`` that is the id of no token there."""

    token: str | None
    number: int = -1


class IdNames:
    """The tokens of one version by their ids.

    Args:
        ids: token -> id.
        result: token -> id in the result; of several tokens with one id, one that the result has is named.
    """

    def __init__(self, ids: Mapping[str, int], result: Mapping[str, int]) -> None:
        self._taken = {*result.values()}
        self._tokens: dict[int, str] = {}
        for token, number in ids.items():
            if number not in self._tokens or self._tokens[number] not in result:
                self._tokens[number] = token

    def of(self, number: int) -> TokenId | int:
        """Return the token with id ``number``; the number if it is no id, here and in the result."""
        found = self._tokens.get(number)
        if found is not None:
            return TokenId(found)
        return TokenId(None, number) if number in self._taken else number


# -- ids to tokens ---------------------------------------------------------------------------


def named(name: str, found: Mapping[str, Any], words: IdNames) -> dict[str, Any]:
    """Return the JSON ``found`` of the file ``name`` with tokens in place of ids."""
    if name == TOKENIZER:
        return {key: _in_tokenizer(key, value, words) for key, value in found.items()}
    return _section(found, words)


def _section(found: Mapping[str, Any], words: IdNames) -> dict[str, Any]:
    return {key: _value(key, value, words) for key, value in found.items()}


def _value(key: str, value: Any, words: IdNames) -> Any:
    if key == DECODER and isinstance(value, dict):
        return {_of_text(one, words): entry for one, entry in value.items()}
    if key in _PAIRS and isinstance(value, list):
        return [_in_pair(one, _PAIRS[key], words) for one in value]
    if _KEYS.fullmatch(key):
        return _each(value, words.of)
    if isinstance(value, dict):
        return _section(value, words)
    if isinstance(value, list):
        return [_section(one, words) if isinstance(one, dict) else one for one in value]
    return value


def _of_text(text: str, words: IdNames) -> TokenId | str:
    """Return the token whose id is ``text``, or the text."""
    is_id = text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
    found = words.of(int(text)) if is_id else text
    return found if isinstance(found, TokenId) else text


def _in_pair(pair: Any, at: int, words: IdNames) -> Any:
    if not isinstance(pair, list) or len(pair) != 2:
        return pair
    return [_each(one, words.of) if number == at else one for number, one in enumerate(pair)]


def _each(value: Any, change: Callable[[int], Any]) -> Any:
    """Return ``value`` with each whole number in it changed."""
    if isinstance(value, dict):
        return {key: _each(one, change) for key, one in value.items()}
    if isinstance(value, list):
        return [_each(one, change) for one in value]
    return change(value) if type(value) is int else value


def _in_tokenizer(key: str, value: Any, words: IdNames) -> Any:
    """Name the ids of a part of ``tokenizer.json`` that is no list of tokens."""
    if key == "padding" and isinstance(value, dict):
        return _section(value, words)
    return _template(value, words) if key == "post_processor" else value


def _template(value: Any, words: IdNames) -> Any:
    """Name the ids of a post-processor: ``"sep": ["[SEP]", 102]`` and ``"ids": [1]``."""
    if isinstance(value, dict):
        return {
            key: _each(one, words.of) if key == "ids" else _template(one, words) for key, one in value.items()
        }
    if not isinstance(value, list):
        return value
    if len(value) == 2 and isinstance(value[0], str):
        return _in_pair(value, 1, words)
    return [_template(one, words) for one in value]


# -- tokens to ids ---------------------------------------------------------------------------


def numbered(value: Any, ids: Mapping[str, int], *, strict: bool = True) -> Any:
    """Return ``value`` with ids in place of tokens.

    Raises :class:`UsageError` for a token without an id; without ``strict`` that is left as it was, and of a
    token the text.
    """
    if isinstance(value, TokenId):
        return _number(value, ids, strict=strict)
    if isinstance(value, dict):
        return {
            str(_number(key, ids, strict=strict)) if isinstance(key, TokenId) else key: numbered(
                one, ids, strict=strict
            )
            for key, one in value.items()
        }
    return [numbered(one, ids, strict=strict) for one in value] if isinstance(value, list) else value


def _number(found: TokenId, ids: Mapping[str, int], *, strict: bool) -> int | str:
    if found.token is not None and found.token in ids:
        return ids[found.token]
    if strict:
        raise UsageError("a token that is named has no id")
    return found.number if found.token is None else found.token


# -- three-way -------------------------------------------------------------------------------


def three_way(base: Any, ours: Any, theirs: Any, where: str, *, deep: bool = True) -> Any:
    """Return the merge of a value that ``where`` names; :data:`ABSENT` if it is gone.

    A table is merged key by key unless it is not to go ``deep``.
    Raises :class:`UsageError`, whose text is a clause, if both sides changed it.
    """
    if ours == theirs or theirs == base:
        return ours
    if ours == base:
        return theirs
    if not deep or not isinstance(ours, dict) or not isinstance(theirs, dict):
        raise UsageError(f"both sides changed {where}")
    before = base if isinstance(base, dict) else {}
    found = {}
    for key in dict.fromkeys((*ours, *theirs)):
        value = three_way(*at(key, before, ours, theirs), f"{_told(key)} of {where}")
        if value is not ABSENT:
            found[key] = value
    return found


def at(
    key: Any, base: Mapping[Any, Any], ours: Mapping[Any, Any], theirs: Mapping[Any, Any]
) -> tuple[Any, Any, Any]:
    """Return the value of ``key`` in each of three tables, or :data:`ABSENT`."""
    return base.get(key, ABSENT), ours.get(key, ABSENT), theirs.get(key, ABSENT)


def _told(key: Any) -> str:
    return str(key.token if isinstance(key, TokenId) else key)


# -- a file ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class MovedIds:
    """A file that names tokens whose ids are others in the result.

    Attributes:
        merged: its merge; None if both sides changed a key, or name what has no id in the result.
        versions: base, ours and theirs with ids of the result; None for one without the file.
        is_strange: a side names what has no id in the result.
    """

    merged: bytes | None
    versions: Sequence[bytes | None]
    is_strange: bool


def moved(
    name: str,
    versions: Sequence[Mapping[str, Any] | None],
    words: Sequence[IdNames],
    ids: Mapping[str, int],
    rows: int | None,
) -> MovedIds | None:
    """Return the file ``name`` of base, ours and theirs with the ids of the result; None if none moves.

    ``rows`` is the number of rows of the embedding, or None if it is not known.
    """
    texts = [None if one is None else copy.deepcopy(dict(one)) for one in versions]
    if name == CONFIG and rows is not None:
        _with_rows(texts, rows)
    found = [None if one is None else named(name, one, own) for one, own in zip(texts, words, strict=True)]
    loose = [None if one is None else numbered(one, ids, strict=False) for one in found]
    strangers = [one is not None and _has_strangers(one, ids) for one in found]
    if loose == list(versions) and not any(strangers[1:]):
        return None
    written = [None if one is None else result_texts.written(one) for one in loose]
    return MovedIds(_merged(name, found, ids), written, any(strangers[1:]))


def _with_rows(texts: Sequence[dict[str, Any] | None], rows: int) -> None:
    for text in texts:
        if text is not None and result_texts.rows(text) is not None:
            result_texts.with_rows(text, rows)


def _has_strangers(found: Any, ids: Mapping[str, int]) -> bool:
    try:
        numbered(found, ids)
    except UsageError:
        return True
    return False


def _merged(name: str, found: Sequence[Any], ids: Mapping[str, int]) -> bytes | None:
    base, ours, theirs = (ABSENT if one is None else one for one in found)
    try:
        whole = three_way(base, ours, theirs, name)
        return None if whole is ABSENT else result_texts.written(numbered(whole, ids))
    except UsageError:
        return None
