"""Merging two commits: git merges the other files, theta merges the checkpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from theta.errors import UsageError
from theta.git import commit_graph, in_progress
from theta.git.object_values import Tree
from theta.git.repository import STORES
from theta.git.run import GitFailedError
from theta.merging.documents import joint_tokenizers
from theta.merging.documents.model_files import VOCABULARIES
from theta.porcelain.merge import dry_run, joining, made_texts, resolving
from theta.porcelain.merge.joining import How, Merged, merge_checkpoints
from theta.porcelain.merge.versions import Stages, Versions, in_folder, read_text
from theta.porcelain.workspace import agreement
from theta.porcelain.workspace.exchange import Exchange
from theta.porcelain.workspace.session import Session

_SPECIAL: Final = re.compile(
    r"merge\.(ff|log|branchdesc|autostash|verifysignatures|renames|renamelimit|renormalize|directoryrenames)|diff\.renames|branch\..*\.mergeoptions"
)
"""Configuration that changes what ``git merge`` does; names are in lower case."""
_FOLLOWING: Final = "'theta merge' lets such files follow; 'git config theta.merge.byToken false' leaves them"


def after_git_merge(
    session: Session, theirs: str, how: How, files: Exchange, *, base: str | None = None
) -> Merged:
    """Settle the checkpoints of the merge that git left in the index, without committing.

    ``files`` has the old files of the worktree open.  ``base`` replaces the merge base.
    """
    versions = _versions(session, session.repo.resolve("HEAD"), theirs, base)
    versions.merged_text = partial(resolving.staged_text, session)
    opened = resolving.open_checkpoints(session, merged_too=True)
    return resolving.settle(session, versions, opened, how, files)


def _versions(session: Session, ours: str, theirs: str, base: str | None) -> Versions:
    if base is not None:
        return Versions(session, base, ours, theirs, chosen=True)
    found = commit_graph.merge_bases(session.repo, ours, theirs)
    return Versions(session, found[0] if found else None, ours, theirs, crossing=found)


# -- in memory -----------------------------------------------------------------------------


@dataclass
class Joined:
    """The result of a merge in memory.

    Attributes:
        tree: the tree that ``git merge-tree`` wrote.
        paths: path -> stages of each checkpoint, and of each file in conflict.
        versions: the versions that were compared.
        merged: the results of the checkpoints.
    """

    tree: Tree
    paths: dict[str, Stages]
    versions: Versions
    merged: Merged = field(default_factory=Merged)

    @property
    def open_files(self) -> list[str]:
        """The files that git could not merge."""
        left = [
            path for path, stages in self.paths.items() if 0 not in stages and path not in self.merged.seen
        ]
        return [*left, *self.merged.open_texts]

    @property
    def clean(self) -> bool:
        """Whether nothing is left to decide."""
        return not (self.open_files or self.merged.conflicts)


def join(
    session: Session,
    ours: str,
    theirs: str,
    how: How,
    base: str | None = None,
    files: Exchange | None = None,
) -> Joined:
    """Merge two commits without touching index and worktree; new objects are written.

    ``base`` replaces the merge base.
    """
    joined = _joined_by_git(session, ours, theirs, base)
    with session.objects.writing(keep=True) as pack:
        joined.merged = merge_checkpoints(session, pack, joined.versions, joined.paths, how, files)
    return joined


def _joined_by_git(session: Session, ours: str, theirs: str, base: str | None = None) -> Joined:
    """Let git merge two commits in memory; the checkpoints are yet to be merged."""
    if not session.objects.are_shared:
        dry_run.bring(session, ours, theirs)
    command = ["merge-tree", "--write-tree", "-z", "--no-messages", "--allow-unrelated-histories"]
    done = session.objects.git().run(*command, ours, _stand_in(session, ours, theirs), check=False)
    if done.code > 1:
        raise GitFailedError("merge-tree", done.code, done.stderr.decode("utf-8", "replace"))
    tree_id, *rows = done.text.rstrip("\0").split("\0")
    tree = session.repo.whole_tree(tree_id)
    paths = _stages(session, tree, [row for row in rows if row])
    joined = Joined(tree, paths, _versions(session, ours, theirs, base))
    joined.versions.merged_text = partial(_text, session, joined)
    return joined


def check_worktree(session: Session, ours: str, theirs: str, how: How, base: str | None = None) -> None:
    """Raise :class:`WouldOverwriteError` if a text that the merge makes would overwrite work of the user."""
    if how.by_path is None and how.options.by_token is None and how.options.dtype is None:
        return  # no text is made, and reading a tokenizer takes longer than the question is worth
    if made_texts.edited(session, joint_tokenizers.BESIDE):
        joined = _joined_by_git(session, ours, theirs, base)
        texts = joining.coming_texts(session, joined.versions, joined.paths, how)
        made_texts.to_write(session, texts, at_once=True)


def with_words(session: Session) -> list[str]:
    """Return the checkpoints of HEAD that have a vocabulary beside them."""
    head = session.repo.head()
    if head is None:
        return []
    tree = session.repo.tree_of(head)
    return [
        path
        for path in session.head.manifests
        if any(tree.get(in_folder(path, name)) is not None for name in VOCABULARIES)
    ]


def on_one_base(session: Session, base: str, heads: Sequence[str]) -> list[str]:
    """Write commits with the trees of ``heads`` on top of one root commit with the tree of ``base``."""
    root = _commit(session, base, [])
    return [_commit(session, head, [root]) for head in heads]


def _commit(session: Session, like: str, parents: Sequence[str]) -> str:
    return commit_graph.unnamed_commit(session.repo, session.repo.tree_of(like).id, parents)


def check_changes(session: Session, onto: str, changes: Sequence[tuple[str, str]], how: How) -> None:
    """Check a cherry-pick or the like before git starts: it applies ``changes``, one after the other.

    The first of them, from a commit to another, is applied to ``onto``.
    Raises :class:`WouldOverwriteError` as :func:`check_worktree` does, and :class:`UsageError` if git would
    not stop though a file names tokens whose ids become others.
    """
    if _have_one_vocabulary(session, [onto, *(oid for pair in changes for oid in pair)]):
        return
    with dry_run.rehearsal(session) as apart:
        for before, after in changes:
            joined = _joined_by_git(apart, *on_one_base(apart, before, [onto, after]))
            texts = joining.coming_texts(apart, joined.versions, joined.paths, how)
            made_texts.to_write(session, texts, at_once=True)
            if texts and all(0 in stages for stages in joined.paths.values()):
                told = f"{after[:12]} has others than what it is applied to"
                raise UsageError(f"{min(texts)} names tokens by their ids, and {told}", hint=_FOLLOWING)
            onto = _applied(apart, joined, texts)


def _have_one_vocabulary(session: Session, commits: Sequence[str]) -> bool:
    """Return whether the models of HEAD have the same vocabularies beside them in all of ``commits``."""
    places = {in_folder(path, name) for path in with_words(session) for name in VOCABULARIES}
    trees = map(session.repo.tree_of, dict.fromkeys(commits))
    found = ([entry and entry.id for entry in map(tree.get, sorted(places))] for tree in trees)
    first = next(found)
    return all(one == first for one in found)


def _applied(session: Session, joined: Joined, texts: Mapping[str, bytes]) -> str:
    """Write a commit like that of a change, as far as tokens go; return its id.

    Where a file is in conflict, theirs stands for what will be made of it.
    """
    stages = {path: one for path, one in joined.paths.items() if 0 not in one}
    left = {path: one.get(3, one.get(2)) for path, one in stages.items()}
    left |= {path: session.repo.write_blob(data) for path, data in texts.items()}
    changes = {path: None if oid is None else (oid, 0) for path, oid in left.items()}
    return _commit(session, commit_graph.edit_tree(session.repo, joined.tree, changes), [])


def _text(session: Session, joined: Joined, path: str) -> bytes | None:
    """Return what the merged tree has in a file that is not in conflict, or None."""
    entry = joined.tree.get(path) if path not in joined.paths else None
    return None if entry is None or not entry.is_file else read_text(session, entry.id, path)


def _stand_in(session: Session, ours: str, theirs: str) -> str:
    """Write a commit on top of ``theirs`` with its files and the ``.theta/`` of ``ours``; no ref names it.

    The content of ``.theta/`` follows from the manifests.  If git merged it, it would start a merge driver
    with three temporary files for every chunk that both sides changed.
    """
    stores = session.repo.tree_of(ours).get(STORES)
    tree = commit_graph.with_directory(
        session.repo, session.repo.tree_of(theirs), STORES, stores.id if stores is not None else None
    )
    return commit_graph.unnamed_commit(session.repo, tree, [theirs])


def is_plain(session: Session, ours: str, theirs: str) -> bool:
    """Return whether ``git merge`` would make a plain merge commit.

    The merge is not a fast-forward, nothing is staged or in progress, and no configuration changes it.
    """
    base = commit_graph.merge_bases(session.repo, ours, theirs)
    if not base or base[0] in (ours, theirs) or in_progress.current(session.repo).name:
        return False
    if any(map(_SPECIAL.fullmatch, session.repo.config)):
        return False
    return commit_graph.index_tree(session.repo) == session.repo.tree_of(ours).id


def _stages(session: Session, tree: Tree, rows: list[str]) -> dict[str, Stages]:
    paths: dict[str, Stages] = {path: {0: one.oid} for path, one in session.at(tree.id).items()}
    open_paths: dict[str, Stages] = {}
    for row in rows:
        head, _, path = row.partition("\t")
        _, oid, stage = head.split(" ")
        if not path.startswith(STORES + "/"):
            open_paths.setdefault(path, {})[int(stage)] = oid
    return paths | open_paths


def result_tree(session: Session, tree: Tree, merged: Merged) -> str:
    """Write ``tree`` with the checkpoints of ``merged`` and their stores; return its id."""
    changes: dict[str, tuple[str, int] | None] = {
        path: (session.repo.write_blob(manifest.data), 0) for path, manifest in merged.resolved.items()
    }
    changes |= {path: (session.repo.write_blob(data), 0) for path, data in merged.texts.items()}
    changes |= dict.fromkeys(merged.removed)
    tree_id = commit_graph.edit_tree(session.repo, tree, changes)
    return agreement.mended_tree(session, session.repo.read_tree(tree_id))
