"""Joining histories: git merges files, theta merges checkpoints, one commit holds both."""

from __future__ import annotations

from dataclasses import dataclass, field

import pygit2
from pygit2.enums import FileMode

from theta.git.repository import STORES
from theta.porcelain import ancestors, mend, rehearsing, resolving
from theta.porcelain.drafts import Held
from theta.porcelain.joining import How, Merged, merge_checkpoints
from theta.porcelain.session import Session
from theta.porcelain.versions import Stages, Versions


def after_git_merge(
    session: Session, theirs: str, how: How, held: Held, *, base: str | None = None
) -> Merged:
    """Settle the checkpoints of a merge that git just left in the index; commits nothing.

    ``held`` are the files from before; ``base``: compare with this commit, not with the merge base.
    """
    versions = _versions(session, session.repo.resolve("HEAD"), theirs, base)
    opened = resolving.open_checkpoints(session, merged_too=True)
    return resolving.settle(session, versions, opened, how, held)


def _versions(session: Session, ours: str, theirs: str, base: str | None) -> Versions:
    if base is not None:
        return Versions(session, base, ours, theirs, chosen=True)
    found = ancestors.best(session, ours, theirs)
    return Versions(session, found[0] if found else None, ours, theirs, crossing=found)


# -- in memory -----------------------------------------------------------------------------


@dataclass
class Joined:
    """A merge of commits that touched neither index nor worktree.

    ``paths`` are the checkpoints with the stages that git's own merge left them.
    """

    tree: pygit2.Tree
    paths: dict[str, Stages]
    versions: Versions
    merged: Merged = field(default_factory=Merged)

    @property
    def open_files(self) -> list[str]:
        """Files that git could not merge."""
        return [
            path for path, stages in self.paths.items() if 0 not in stages and path not in self.merged.seen
        ]

    @property
    def clean(self) -> bool:
        """Whether nothing is left to decide."""
        return not (self.open_files or self.merged.conflicts)


def join(session: Session, ours: str, theirs: str, how: How, base: str | None = None) -> Joined:
    """Merge two commits in memory (its objects are written, or weighed in a rehearsal)."""
    command = ["merge-tree", "--write-tree", "-z", "--no-messages", "--allow-unrelated-histories"]
    done = rehearsing.git(session).run(*command, ours, theirs, check=False)
    tree_id, *rows = done.text.rstrip("\0").split("\0")
    tree = session.repo.raw[tree_id]
    assert isinstance(tree, pygit2.Tree)
    paths = _stages(session, tree, [row for row in rows if row])
    joined = Joined(tree, paths, _versions(session, ours, theirs, base))
    pack = session.objects.writer()
    try:
        joined.merged = merge_checkpoints(session, pack, joined.versions, paths, how)
        pack.finish()
    finally:
        pack.abort()
    session.objects.refresh()
    return joined


def _stages(session: Session, tree: pygit2.Tree, rows: list[str]) -> dict[str, Stages]:
    paths: dict[str, Stages] = {path: {0: oid} for path, oid in session.in_tree(str(tree.id)).items()}
    open_paths: dict[str, Stages] = {}
    for row in rows:
        head, _, path = row.partition("\t")
        _, oid, stage = head.split(" ")
        if not path.startswith(STORES + "/"):
            open_paths.setdefault(path, {})[int(stage)] = oid
    return paths | open_paths


def result_tree(session: Session, tree: pygit2.Tree, merged: Merged) -> str:
    """Write ``tree`` with the checkpoints as ``merged`` has them; the answer is its id."""
    index = pygit2.Index()
    index.read_tree(tree)
    for path, manifest in merged.resolved.items():
        mode = index[path].mode if path in index else FileMode.BLOB
        index.add(pygit2.IndexEntry(path, pygit2.Oid(hex=session.repo.write_blob(manifest.data)), mode))
    for path in merged.removed:
        if path in index:
            index.remove(path)
    plain = session.repo.raw[index.write_tree(session.repo.raw)]
    assert isinstance(plain, pygit2.Tree)
    return mend.mended_tree(session, plain)
