"""The tokens of the rows of embeddings, where the vocabularies beside the merged checkpoints differ.

The vocabulary of the result is that of the side which changed it, or what git or the user made of both
sides' changes; where git cannot, tokens that both sides added are joined here.  Files that name tokens by
their ids follow.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from theta.errors import MALFORMED, UsageError
from theta.git import lfs
from theta.merging.documents import joint_tokenizers, result_texts, token_ids
from theta.merging.documents.model_files import EMBEDDING, TOKENIZER, VOCABULARIES
from theta.merging.documents.token_ids import IdNames
from theta.merging.shapes.by_token import TokenOrder, agree
from theta.porcelain.merge import made_texts
from theta.porcelain.merge.made_texts import OpenText
from theta.porcelain.merge.versions import MOST_TEXT, Versions, home, in_folder, neighbour, read_text
from theta.porcelain.workspace.checkpoints import Checkpoints
from theta.porcelain.workspace.session import Session

BY_NUMBER: Final = "'git config theta.merge.byToken false' matches rows by number"
_LAYER: Final = re.compile(r"(?<=[a-z][./_])\d+(?=[./])|(?<=[a-z])\d+(?=[./])")
"""The number of a layer, as in ``layers.7.mlp``."""
_STATE: Final = re.compile(r"(.*[./])?state[./]\d+[./].*")
"""Names of the state of an optimizer, whose numbers are of tensors."""
_MOST_PADDING: Final = 2
"""The rows of one table of tokens are at most so many times those of another."""
_SIDES: Final = ("the base", "ours", "theirs")


@dataclass(frozen=True)
class MatchedTokens:
    """The tokens of a merge.

    Attributes:
        order: the rows of the result and of the versions.
        tokenizer: id of the vocabulary file of the result; empty if it is not known.
        texts: path -> content, of the files that tell the tokens of both sides, or name them by their ids.
        open_texts: path -> a file that both sides changed, and that names tokens whose ids are others now.
    """

    order: TokenOrder
    tokenizer: str = ""
    texts: Mapping[str, bytes] = field(default_factory=dict)
    open_texts: Mapping[str, OpenText] = field(default_factory=dict)


def matched(session: Session, versions: Versions, path: str, asked: str) -> MatchedTokens | None:
    """Return the tokens of the checkpoint at ``path``; None if rows of one number are of one token.

    ``asked`` is the id of the vocabulary file that the result is to have, or "".
    Raises :class:`PointerError` if a vocabulary is a pointer of Git LFS whose file was not fetched.
    """
    name = versions.vocabulary(path)
    if name is None:
        return None
    try:
        data = versions.texts(path, name)
        texts = [None if one is None else _whole(session, name, one) for one in data]
        if _say_one(name, [one for one in texts if one is not None]):
            return None
        known = [None if one is None else joint_tokenizers.ids(name, one) for one in texts]
        if _agree_beside(_trees(versions, path), known):
            return None
        found = _result(session, versions, path, name, data)
    except UsageError as error:
        return _unknown(versions, path, f"{error} ({BY_NUMBER})")
    if asked and (found.reason or asked != session.repo.format.blob_id(found.data)):
        found = _Result(read_text(session, asked, f"the tokenizer {asked[:12]}"))
    if found.reason:
        told = f"{found.reason}, so that no row is known to be of the same token; settle that file first"
        return _unknown(versions, path, told, known)
    ids = joint_tokenizers.ids(name, _whole(session, name, found.data))
    like = next((number for number, own in enumerate(known[1:]) if own == ids), None)
    order = replace(_unknown(versions, path, "", known).order, ids=ids, like=like)
    followed = _followed(session, versions, path, order)
    oid = session.repo.format.blob_id(found.data)
    return MatchedTokens(order, oid, {**found.texts, **followed.texts}, followed.open_texts)


def _unknown(
    versions: Versions, path: str, reason: str, known: Sequence[Mapping[str, int] | None] = (None,) * 3
) -> MatchedTokens:
    """Return the tokens of a merge whose result has unknown ones, for a ``reason``."""
    trees = _trees(versions, path)
    counts = [tree.counts(own) for tree, own in zip(trees, known, strict=True)]
    hidden = frozenset().union(*(tree.hidden() for tree in trees))
    layered = frozenset().union(*(tree.layered() for tree in trees))
    order = TokenOrder({}, known, reason=reason, counts=counts, hidden=hidden, layered=layered)
    return MatchedTokens(order)


class _Tree:
    """The tensors of one version in the folder of a checkpoint."""

    def __init__(self, tree: Checkpoints, path: str) -> None:
        folder = path.rpartition("/")[0]
        self._files = [
            [(line.name, line.shape) for line in one.lines if line.shape]
            for other, one in tree.manifests.items()
            if other.rpartition("/")[0] == folder
        ]

    def counts(self, known: Mapping[str, int] | None) -> set[int]:
        """Return the numbers of rows of embeddings, or of the vocabulary if none is of its tokens."""
        found = {shape[0] for file in self._files for name, shape in file if EMBEDDING.fullmatch(name)}
        return _of_words(found, max(known.values()) + 1) if known else found

    def hidden(self) -> set[int]:
        """Return the lengths of axes that several layers of a model have, and of the rows of embeddings.

        The state of an optimizer, whose tensors have numbers as names, has no layers.
        """
        of_embeddings = {
            length
            for file in self._files
            for name, shape in file
            if EMBEDDING.fullmatch(name)
            for length in shape[1:]
        }
        return of_embeddings | {length for _, shape in self._layers() for length in shape}

    def layered(self) -> set[str]:
        """Return the names of the tensors that several layers have."""
        return {name for name, _ in self._layers()}

    def _layers(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        for file in self._files:
            found = [(name, shape) for name, shape in file if not _STATE.fullmatch(name)]
            alike = Counter((_LAYER.sub("*", name), shape) for name, shape in found)
            yield from ((name, shape) for name, shape in found if alike[_LAYER.sub("*", name), shape] > 1)


def _trees(versions: Versions, path: str) -> list[_Tree]:
    """Return the tensors of base, ours and theirs beside the checkpoint that the result has at ``path``."""
    return [_Tree(tree, own) for tree, own in zip(versions.trees, versions.homes(path), strict=True)]


def _of_words(found: Collection[int], tokens: int) -> set[int]:
    """Return those numbers of rows that are of as many ``tokens``, with padding.

    A table of codes of images, or that of another model, is named like an embedding too, and its rows are
    not of these tokens.  A tokenizer may have tokens that no row was made for.
    """
    enough = [count for count in found if count >= tokens]
    if enough:
        return {count for count in enough if count <= _MOST_PADDING * min(enough)}
    most = max(found, default=0)
    return {most if most * _MOST_PADDING > tokens else tokens}


def check_several(session: Session, base: str | None, heads: Sequence[str], path: str, store: str) -> None:
    """Raise :class:`UsageError` if vocabularies beside ``path`` differ between ``base`` and ``heads``.

    All of them are compared with each other: two branches may have appended two tokens under one number.
    """
    try:
        agreed = _agree_in(session, [commit for commit in (base, *heads) if commit is not None], path, store)
    except UsageError as error:
        raise UsageError(f"{path}: rows cannot be matched by token: {error}", hint=BY_NUMBER) from error
    if not agreed:
        raise UsageError(
            f"{path}: the branches have different tokens under the same numbers",
            hint="merge one branch after the other: rows are then matched by token",
        )


def _agree_in(session: Session, commits: Sequence[str], path: str, store: str) -> bool:
    """Return whether a row of one number is that of one token beside a checkpoint in all of ``commits``."""
    for name in VOCABULARIES:
        data = [neighbour(session, commit, path, name, store) for commit in commits]
        if len({*data} - {None}) > 1:
            data = [None if one is None else _whole(session, name, one) for one in data]
        found = {one for one in data if one is not None}
        if len(found) > 1 and not _say_one(name, [*found]):
            known = [None if one is None else joint_tokenizers.ids(name, one) for one in data]
            trees = map(session.at, commits)
            return _agree_beside([_Tree(tree, home(tree, path, store)) for tree in trees], known)
        if found:
            break
    return True


def _whole(session: Session, name: str, data: bytes) -> bytes:
    """Return the vocabulary file ``name``, which may be a pointer of Git LFS."""
    return lfs.text(session.repo, data, name, MOST_TEXT)


def _agree_beside(trees: Sequence[_Tree], versions: Sequence[Mapping[str, int] | None]) -> bool:
    """Return whether a row of one number is that of one token in all of ``trees``."""
    pairs = [(own, tree) for tree, own in zip(trees, versions, strict=True) if own is not None]
    return agree([own for own, _ in pairs], [max(tree.counts(own), default=0) for own, tree in pairs])


def _say_one(name: str, found: Sequence[bytes]) -> bool:
    """Return whether tokenizers have the same tokens, whatever else they say."""
    return name == TOKENIZER and len({_tokens(data) for data in found}) == 1


def _tokens(data: bytes) -> str:
    """Return the parts of a ``tokenizer.json`` that tell tokens, or all of it."""
    try:
        found = {} if result_texts.has_too_many(data) else json.loads(data)
        return json.dumps([found["model"]["vocab"], found.get("added_tokens")])
    except MALFORMED:
        return data.decode("utf-8", "surrogateescape")


# -- the vocabulary of the result ------------------------------------------------------------


@dataclass(frozen=True)
class _Result:
    """The vocabulary file of the result, or why there is none."""

    data: bytes = b""
    texts: Mapping[str, bytes] = field(default_factory=dict)
    reason: str = ""


def _result(
    session: Session, versions: Versions, path: str, name: str, data: Sequence[bytes | None]
) -> _Result:
    base, ours, theirs = data
    assert ours is not None
    assert theirs is not None
    if theirs in (base, ours):
        return _Result(ours)
    if ours == base:
        return _Result(theirs)
    merged = versions.merged_text(place := in_folder(path, name))
    if merged is not None and _is_vocabulary(name, _whole(session, name, merged)):
        is_json = name == TOKENIZER and not lfs.is_pointer(merged)
        whole = joint_tokenizers.with_own_ids(merged) if is_json else merged
        return _Result(whole, {place: whole} if whole != merged else {})
    if name != TOKENIZER or any(map(lfs.is_pointer, filter(None, data))):
        return _Result(reason=f"both sides changed {name}")
    return _joined(versions, path)


def _is_vocabulary(name: str, data: bytes) -> bool:
    """Return whether a file that git merged has one token for each id."""
    try:
        found = joint_tokenizers.ids(name, data)
    except UsageError:
        return False
    return bool(found) and len({*found.values()}) == len(found)


def _joined(versions: Versions, path: str) -> _Result:
    found: list[dict[str, bytes]] = [{}, {}, {}]
    for name in (TOKENIZER, "added_tokens.json"):
        for texts, data in zip(found, versions.texts(path, name), strict=True):
            texts |= {} if data is None else {name: data}
    base, ours, theirs = map(joint_tokenizers.labelled, _SIDES, found)
    try:
        _, texts = joint_tokenizers.joined(base if TOKENIZER in base.texts else None, ours, theirs)
    except UsageError as error:
        return _Result(reason=str(error))
    return _Result(texts[TOKENIZER], {in_folder(path, name): text for name, text in texts.items()})


# -- files that name tokens by their ids -----------------------------------------------------


@dataclass
class _Followed:
    """The files whose ids follow, by path."""

    texts: dict[str, bytes] = field(default_factory=dict)
    open_texts: dict[str, OpenText] = field(default_factory=dict)


def _followed(session: Session, versions: Versions, path: str, order: TokenOrder) -> _Followed:
    """Return the files beside ``path`` that name tokens, with the ids of the result."""
    words = [IdNames(own or {}, order.ids) for own in order.versions]
    found = _Followed()
    for name in token_ids.NAMING:
        parsed = _parsed(versions, path, name)
        if parsed[1:] == [None, None] or (None in parsed[1:] and parsed[0] is not None):
            continue  # one side deleted it, and git tells
        place, moved = in_folder(path, name), token_ids.moved(name, parsed, words, order.ids, _rows(order))
        if moved is None:
            continue
        if moved.merged is not None:
            found.texts[place] = moved.merged
        else:
            made = made_texts.merged(session, moved.versions)
            if made.is_clean and not moved.is_strange:
                found.texts[place] = made.data
            else:
                found.open_texts[place] = made
    return found


def _parsed(versions: Versions, path: str, name: str) -> list[dict[str, Any] | None]:
    """Return what base, ours and theirs have in the file ``name``; nothing if one of them is unreadable.

    A file that is no JSON of a model (one with comments, say) is no matter of tokens: git merges it.
    """
    try:
        data = versions.texts(path, name)
        models = map(joint_tokenizers.labelled, _SIDES, ({} if one is None else {name: one} for one in data))
        return [result_texts.parsed(model, name) for model in models]
    except UsageError:
        return [None, None, None]


def _rows(order: TokenOrder) -> int | None:
    """Return the number of rows that the embedding of the result has; None if it is not known."""
    assert order.counts is not None
    if any(len(own) != 1 for own in order.counts[1:]) or len(order.counts[0]) > 1:
        return None
    return order.total([next(iter(own), 0) for own in order.counts])
