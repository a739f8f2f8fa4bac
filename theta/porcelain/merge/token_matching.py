"""The tokens of the rows of embeddings, where the vocabularies beside the merged checkpoints differ.

The vocabulary of the result is that of the side which changed it, or what git or the user made of both
sides' changes; where git cannot, tokens that both sides added are joined here.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from theta.errors import MALFORMED, UsageError
from theta.merging.documents import joint_tokenizers, vocabulary_files
from theta.merging.documents.model_files import EMBEDDING, TOKENIZER
from theta.merging.shapes.by_token import TokenOrder
from theta.porcelain.merge.versions import Versions, in_folder, neighbour
from theta.porcelain.workspace.session import Session

_MOST_BYTES: Final = 128 << 20
"""Bytes of a vocabulary file; that of Gemma 3, with 262,144 tokens, has 33 MB."""
_BY_NUMBER: Final = "'git config theta.merge.byToken false' matches rows by number"


@dataclass(frozen=True)
class MatchedTokens:
    """The tokens of a merge.

    Attributes:
        order: the rows of the result and of the versions.
        tokenizer: id of the vocabulary file of the result; empty if it is not known.
        texts: path -> content, of the files that tell the tokens of both sides.
    """

    order: TokenOrder
    tokenizer: str = ""
    texts: Mapping[str, bytes] = field(default_factory=dict)


def matched(session: Session, versions: Versions, path: str, asked: str) -> MatchedTokens | None:
    """Return the tokens of the checkpoint at ``path``; None if rows of one number are of one token.

    ``asked`` is the id of the vocabulary file that the result is to have, or "".
    """
    name = versions.vocabulary(path)
    if name is None:
        return None
    data = versions.texts(path, name)
    if _say_one(name, [one for one in data if one is not None]):
        return None
    try:
        base, ours, theirs = (None if one is None else _ids(name, one) for one in data)
    except UsageError as error:
        reason = f"{error} ({_BY_NUMBER})"
        return MatchedTokens(TokenOrder({}, (None,) * 3, reason=reason, counts=_counts(versions, path)))
    known = [one for one in (base, ours, theirs) if one is not None]
    if len(known) < 2 or joint_tokenizers.agree(known):
        return None
    found = _result(versions, path, name, data)
    oid = session.repo.format.blob_id(found.data) if not found.reason else ""
    if asked and oid != asked:
        found, oid = _Result(session.repo.read_blob(asked)), asked
    if found.reason:
        reason = f"{found.reason}, so that no row is known to be of the same token; settle that file first"
        order = TokenOrder({}, (base, ours, theirs), reason=reason, counts=_counts(versions, path))
        return MatchedTokens(order)
    ids = _ids(name, found.data)
    like = next((number for number, own in enumerate((ours, theirs)) if own == ids), None)
    order = TokenOrder(ids, (base, ours, theirs), like, counts=_counts(versions, path))
    return MatchedTokens(order, oid, found.texts)


def _counts(versions: Versions, path: str) -> list[set[int]]:
    """Return the numbers of rows that embeddings have in the folder of ``path``, in base, ours and theirs."""
    folder = path.rpartition("/")[0]
    return [
        {
            line.shape[0]
            for other, manifest in tree.manifests.items()
            if other.rpartition("/")[0] == folder
            for line in manifest.lines
            if line.shape and EMBEDDING.fullmatch(line.name)
        }
        for tree in versions.trees
    ]


def check_several(session: Session, base: str | None, heads: Sequence[str], path: str) -> None:
    """Raise :class:`UsageError` if vocabularies beside ``path`` differ between ``base`` and ``heads``.

    All of them are compared with each other: two branches may have appended two tokens under one number.
    """
    commits = [commit for commit in (base, *heads) if commit is not None]
    for name in vocabulary_files.FILES:
        found = {data for commit in commits if (data := neighbour(session, commit, path, name)) is not None}
        if found:
            break
    try:
        agreed = len(found) < 2 or _say_one(name, [*found]) or joint_tokenizers.agree(_all_ids(name, found))
    except UsageError as error:
        raise UsageError(f"{path}: rows cannot be matched by token: {error}", hint=_BY_NUMBER) from error
    if not agreed:
        raise UsageError(
            f"{path}: the branches have different tokens under the same numbers",
            hint="merge one branch after the other: rows are then matched by token",
        )


def _all_ids(name: str, found: Collection[bytes]) -> list[Mapping[str, int]]:
    return [_ids(name, data) for data in found]


def _say_one(name: str, found: Sequence[bytes]) -> bool:
    """Return whether tokenizers have the same tokens, whatever else they say."""
    return name == TOKENIZER and len({_tokens(data) for data in found}) == 1


def _tokens(data: bytes) -> str:
    """Return the parts of a ``tokenizer.json`` that tell tokens, or all of it."""
    try:
        found = json.loads(data)
        return json.dumps([found["model"]["vocab"], found.get("added_tokens")])
    except MALFORMED:
        return repr(data)


def _ids(name: str, data: bytes) -> Mapping[str, int]:
    if len(data) > _MOST_BYTES:
        raise UsageError(f"{name} has {len(data)} bytes")
    return joint_tokenizers.ids(name, data)


@dataclass(frozen=True)
class _Result:
    """The vocabulary file of the result, or why there is none."""

    data: bytes = b""
    texts: Mapping[str, bytes] = field(default_factory=dict)
    reason: str = ""


def _result(versions: Versions, path: str, name: str, data: Sequence[bytes | None]) -> _Result:
    base, ours, theirs = data
    assert ours is not None
    assert theirs is not None
    if theirs in (base, ours):
        return _Result(ours)
    if ours == base:
        return _Result(theirs)
    merged = versions.merged_text(in_folder(path, name))
    if merged is not None and _is_vocabulary(name, merged):
        return _Result(merged)
    if name != TOKENIZER:
        return _Result(reason=f"both sides changed {name}")
    return _joined(versions, path)


def _is_vocabulary(name: str, data: bytes) -> bool:
    """Return whether a file that git merged has one token for each id."""
    try:
        found = _ids(name, data)
    except UsageError:
        return False
    return bool(found) and len({*found.values()}) == len(found)


def _joined(versions: Versions, path: str) -> _Result:
    found: list[dict[str, bytes]] = [{}, {}, {}]
    for name in joint_tokenizers.BESIDE:
        for texts, data in zip(found, versions.texts(path, name), strict=True):
            texts |= {} if data is None else {name: data}
    base, ours, theirs = found
    labelled = joint_tokenizers.labelled
    try:
        _, texts = joint_tokenizers.joined(
            labelled("the base", base) if TOKENIZER in base else None,
            labelled("ours", ours),
            labelled("theirs", theirs),
        )
    except UsageError as error:
        return _Result(reason=str(error))
    by_path = {in_folder(path, name): text for name, text in texts.items()}
    return _Result(texts[TOKENIZER], by_path)
