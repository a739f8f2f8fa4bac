"""The vocabulary files of two versions, joined three-way with that of their base.

Tokens that one side added are taken: ours keep their ids, those of theirs come after them as added tokens.
What else a ``tokenizer.json`` has is taken from the side that changed it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from theta.errors import UsageError
from theta.merging.documents import result_texts, vocabularies
from theta.merging.documents.model_files import CONFIG, OF_TOKENIZER, TOKENIZER, ModelFiles
from theta.merging.documents.tokenizer_files import TokenizerFile
from theta.merging.documents.tokenizer_keys import UNION, TokenizerKey
from theta.merging.documents.vocabularies import Vocabulary

BESIDE: Final = (CONFIG, *OF_TOKENIZER)
_ADDED: Final = "added_tokens"
_DECODER: Final = "added_tokens_decoder"
_ROWS: Final = "vocab_size"
_ABSENT: Final = object()


def ids(name: str, data: bytes) -> dict[str, int]:
    """Return token -> id of the vocabulary file ``name``; several tokens may have one.

    Raises :class:`UsageError` if it has none.
    """
    if name == "vocab.txt":
        tokens = data.decode("utf-8", "surrogateescape").split("\n")
        return {token.rstrip("\r"): number for number, token in enumerate(tokens) if token}
    if name != TOKENIZER:
        inner = _object(name, data)
        data = result_texts.written({"model": {"vocab": inner}})
    return TokenizerFile(ModelFiles("the merge", "", {}, {TOKENIZER: data}), aliases=True).ids


def agree(versions: Sequence[Mapping[str, int]]) -> bool:
    """Return whether a row of one number is that of one token in all of ``versions``."""
    return all(
        _agree(one, other) for at, one in enumerate(versions) for other in versions[at + 1 :] if one != other
    )


def _agree(one: Mapping[str, int], other: Mapping[str, int]) -> bool:
    taken = {*one.values()}, {*other.values()}
    return all(other.get(token, number) == number for token, number in one.items()) and not (
        any(number in taken[1] for token, number in one.items() if token not in other)
        or any(number in taken[0] for token, number in other.items() if token not in one)
    )


def joined(
    base: ModelFiles | None, ours: ModelFiles, theirs: ModelFiles
) -> tuple[Mapping[str, int], dict[str, bytes]]:
    """Return the ids of the tokens of both sides, and the files that tell them.

    Raises :class:`UsageError`, whose text is a clause, if both sides changed more than tokens.
    """
    versions = _parsed(TOKENIZER, base, ours, theirs)
    common = {key: _three_way(TOKENIZER, key, versions) for key in _keys(versions) - {_ADDED, "model"}}
    first, second = _ordered(versions, ours, theirs)
    # All tokens count, whatever a configuration tells that nobody brought up to date.
    files = {one.label: _without_config(one) for one in (first, second)}
    words = vocabularies.build(TokenizerKey(UNION), files, None)
    found = json.loads(words.texts[TOKENIZER])
    found = {key: found[key] for key in found if key in (_ADDED, "model")}
    whole = {**{key: value for key, value in common.items() if value is not _ABSENT}, **found}
    texts = {TOKENIZER: result_texts.written(whole)}
    texts |= _beside(base, ours, theirs, words)
    return words.ids, texts


def _without_config(model: ModelFiles) -> ModelFiles:
    return replace(model, texts={name: data for name, data in model.texts.items() if name != CONFIG})


def _parsed(name: str, *versions: ModelFiles | None) -> list[dict[str, Any] | None]:
    return [None if one is None else result_texts.parsed(one, name) for one in versions]


def _ordered(
    versions: Sequence[Mapping[str, Any] | None], ours: ModelFiles, theirs: ModelFiles
) -> tuple[ModelFiles, ModelFiles]:
    """Return both sides, first the one whose model of text the result has."""
    before, own, other = (None if one is None else one.get("model") for one in versions)
    if own == other or (before is not None and other == before):
        return ours, theirs
    if before is not None and own == before:
        return theirs, ours
    raise UsageError(f"both sides changed the model of {TOKENIZER}")


def _keys(versions: Sequence[Mapping[str, Any] | None]) -> set[str]:
    return {key for one in versions if one is not None for key in one}


def _three_way(name: str, key: str, versions: Sequence[Mapping[str, Any] | None]) -> Any:
    base, ours, theirs = (_ABSENT if one is None else one.get(key, _ABSENT) for one in versions)
    if ours == theirs or theirs == base:
        return ours
    if ours == base:
        return theirs
    raise UsageError(f"both sides changed {key} of {name}")


# -- the files beside it ---------------------------------------------------------------------


def _beside(
    base: ModelFiles | None, ours: ModelFiles, theirs: ModelFiles, words: Vocabulary
) -> dict[str, bytes]:
    """Return the other files that tell of tokens except those in conflict for other reasons."""
    texts = {}
    if "added_tokens.json" in words.texts:
        texts["added_tokens.json"] = words.texts["added_tokens.json"]
    found = _without("tokenizer_config.json", _DECODER, base, ours, theirs)
    if found is not None:
        told = json.loads(words.texts.get("tokenizer_config.json", b"{}"))
        found |= {_DECODER: told[_DECODER]} if _DECODER in told else {}
        texts["tokenizer_config.json"] = result_texts.written(found)
    found = _without(CONFIG, _ROWS, base, ours, theirs)
    told = result_texts.rows(result_texts.parsed(ours) or {})
    if found is not None and told is not None:
        result_texts.with_rows(found, max(words.count, told))
        texts[CONFIG] = result_texts.written(found)
    return texts


def _without(
    name: str, key: str, base: ModelFiles | None, ours: ModelFiles, theirs: ModelFiles
) -> dict[str, Any] | None:
    """Merge the JSON ``name``, with ``key`` as ours has it; None if sides lack it or disagree."""
    versions = _parsed(name, base, ours, theirs)
    if None in versions[1:]:
        return None
    keys = _ordered_keys(versions)
    try:
        found = {one: _three_way(name, one, versions) for one in keys if one != key}
    except UsageError:
        return None
    own = versions[1] or {}
    found |= {key: own[key]} if key in own else {}
    return {one: found[one] for one in keys if found.get(one, _ABSENT) is not _ABSENT}


def _ordered_keys(versions: Sequence[Mapping[str, Any] | None]) -> list[str]:
    """Return all keys in the order of ours."""
    listed = [versions[1] or {}, *(one for one in versions if one is not None)]
    return list(dict.fromkeys(key for one in listed for key in one))


def _object(name: str, data: bytes) -> dict[str, Any]:
    found = result_texts.parsed(ModelFiles("the merge", "", {}, {name: data}), name)
    assert found is not None
    return found


def labelled(side: str, texts: Mapping[str, bytes]) -> ModelFiles:
    """Return the files of a side as a model, so that errors name it."""
    return replace(ModelFiles(side, "", {}), texts=texts)
