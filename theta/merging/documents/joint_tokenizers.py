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
from theta.merging.documents import result_texts, token_ids, vocabularies
from theta.merging.documents.model_files import TOKENIZER, ModelFiles
from theta.merging.documents.token_ids import ABSENT, IdNames
from theta.merging.documents.tokenizer_files import TokenizerFile
from theta.merging.documents.tokenizer_keys import UNION, TokenizerKey

BESIDE: Final = (*token_ids.NAMING, TOKENIZER, "added_tokens.json")
"""The files that a merge by token may write."""
_ADDED: Final = "added_tokens"
_MOST_LINES: Final = 1 << 22


def ids(name: str, data: bytes) -> dict[str, int]:
    """Return token -> id of the vocabulary file ``name``; several tokens may have one.

    Raises :class:`UsageError` if it has none.
    """
    if name == "vocab.txt":
        if data.count(b"\n") > _MOST_LINES:
            raise UsageError(f"{name} has more than {_MOST_LINES} lines")
        tokens = data.decode("utf-8", "surrogateescape").split("\n")
        return {token.rstrip("\r"): number for number, token in enumerate(tokens) if token}
    if name != TOKENIZER:
        inner = _object(name, data)
        data = result_texts.written({"model": {"vocab": inner}})
    return TokenizerFile(ModelFiles("the merge", "", {}, {TOKENIZER: data}), aliases=True).ids


def joined(
    base: ModelFiles | None, ours: ModelFiles, theirs: ModelFiles
) -> tuple[Mapping[str, int], dict[str, bytes]]:
    """Return the ids of the tokens of both sides, and the vocabulary files that tell them.

    Raises :class:`UsageError`, whose text is a clause, if both sides changed more than tokens.
    """
    texts = [None if one is None else result_texts.parsed(one, TOKENIZER) for one in (base, ours, theirs)]
    first, second = _ordered(texts, ours, theirs)
    words = vocabularies.build(TokenizerKey(UNION), {one.label: one for one in (first, second)}, None)
    tokens = [{} if one is None else ids(TOKENIZER, one.texts[TOKENIZER]) for one in (base, ours, theirs)]
    common = _common(texts, [IdNames(own, words.ids) for own in tokens], words.ids)
    found = json.loads(words.texts[TOKENIZER])
    found = {key: found[key] for key in found if key in (_ADDED, "model")}
    made = {TOKENIZER: result_texts.written({**common, **found})}
    if "added_tokens.json" in words.texts:
        made["added_tokens.json"] = words.texts["added_tokens.json"]
    return words.ids, made


def _common(
    versions: Sequence[Mapping[str, Any] | None], words: Sequence[IdNames], ids: Mapping[str, int]
) -> dict[str, Any]:
    """Merge what is neither an added token nor the model, in the order of ours."""
    rest = [{k: v for k, v in (one or {}).items() if k not in (_ADDED, "model")} for one in versions]
    named = [token_ids.named(TOKENIZER, one, own) for one, own in zip(rest, words, strict=True)]
    base, first, second = named
    merged = {}
    for key in dict.fromkeys((*first, *second)):
        value = token_ids.three_way(
            *token_ids.at(key, base, first, second), f"{key} of {TOKENIZER}", deep=False
        )
        if value is not ABSENT:
            merged[key] = value
    return dict(token_ids.numbered(merged, ids))


def with_own_ids(data: bytes) -> bytes:
    """Return a ``tokenizer.json`` whose template and padding name the ids that its tokens have.

    Each id stands beside its token there: git may have merged the one and not the other.
    """
    found, own = _object(TOKENIZER, data), ids(TOKENIZER, data)
    padding, changed = found.get("padding"), dict[str, Any]()
    token = padding.get("pad_token") if isinstance(padding, dict) else None
    if isinstance(padding, dict) and isinstance(token, str) and token in own:
        changed["padding"] = {**padding, "pad_id": own[token]}
    if "post_processor" in found:
        changed["post_processor"] = _renumbered(found["post_processor"], own)
    if all(found.get(key) == value for key, value in changed.items()):
        return data
    return result_texts.written({**found, **changed})


def _renumbered(value: Any, own: Mapping[str, int]) -> Any:
    """Return a post-processor with the ids that its tokens have."""
    if isinstance(value, list):
        if len(value) == 2 and isinstance(value[0], str) and type(value[1]) is int:
            return [value[0], own.get(value[0], value[1])]
        return [_renumbered(one, own) for one in value]
    if not isinstance(value, dict):
        return value
    tokens = value.get("tokens")
    known = isinstance(tokens, list) and all(isinstance(one, str) and one in own for one in tokens)
    numbers = [own[one] for one in tokens] if known and tokens is not None else value.get("ids")
    return {key: numbers if key == "ids" else _renumbered(one, own) for key, one in value.items()}


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


def _object(name: str, data: bytes) -> dict[str, Any]:
    found = result_texts.parsed(ModelFiles("the merge", "", {}, {name: data}), name)
    assert found is not None
    return found


def labelled(side: str, texts: Mapping[str, bytes]) -> ModelFiles:
    """Return the files of a side as a model, so that errors name it."""
    return replace(ModelFiles(side, "", {}), texts=texts)
