"""Merging several branches at once, like git's octopus.

Like git's octopus, the branches are merged one after the other, each with its own merge base.  A tensor
that these steps leave in conflict is then settled once, with the values of all branches: the average of
ten contributors is one average, not nine in a row.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from theta import _fs
from theta.git import commit_graph, state_files
from theta.git.commit_graph import octopus_base
from theta.git.repository import STORES
from theta.git.run import Git, GitFailedError
from theta.merging import engine
from theta.merging.result_file import CONTAINER
from theta.merging.states import Conflict
from theta.merging.strategies import Strategy
from theta.porcelain.merge import in_memory, recording
from theta.porcelain.merge.in_memory import Joined
from theta.porcelain.merge.joining import How
from theta.porcelain.merge.versions import Stages, Versions
from theta.porcelain.workspace.in_progress import Operation
from theta.porcelain.workspace.session import Session
from theta.store.format.manifest import Line, Manifest
from theta.store.odb.packs import PackWriter


def join(session: Session, heads: Sequence[str], how: How, base: str | None = None) -> Joined:
    """Merge all ``heads`` (ours first) in memory; the paths of the result have stage 0 only.

    ``base`` replaces the common ancestor of all heads.
    """
    if len(heads) == 2:
        return in_memory.join(session, heads[0], heads[1], how, base)
    steps = _Steps(session)
    joined = steps.join(heads)
    if not joined.clean:
        return joined
    tree = session.repo.whole_tree(in_memory.result_tree(session, joined.tree, joined.merged))
    paths: dict[str, Stages] = {path: {0: one.oid} for path, one in session.of_tree(tree).items()}
    result = Joined(tree, paths, joined.versions)
    with session.objects.writing() as pack:
        together = _Together(session, pack, heads, how, steps.asked)
        together.settle(result, base or octopus_base(session.repo, heads))
    return result


@dataclass
class _Steps:
    """Merges the branches one after the other, and takes ours for each tensor in conflict.

    ``asked`` collects store -> names of these tensors.
    """

    session: Session
    asked: dict[str, set[str]] = field(default_factory=dict)

    def join(self, heads: Sequence[str]) -> Joined:
        current, *others = heads
        for at, other in enumerate(others):
            asked: dict[str, set[str]] = {}
            joined = in_memory.join(self.session, current, other, _noting(asked))
            for path, manifest in joined.merged.resolved.items():
                self.asked.setdefault(manifest.store, set()).update(asked.get(path, ()))
            if not joined.clean or at == len(others) - 1:
                break
            current = self._commit(joined, [current, other])
        return joined

    def _commit(self, joined: Joined, parents: list[str]) -> str:
        """Write a commit of the result, which no ref names: ``git merge-tree`` merges commits only."""
        tree = in_memory.result_tree(self.session, joined.tree, joined.merged)
        return commit_graph.unnamed_commit(self.session.repo, tree, parents)


def _noting(asked: dict[str, set[str]]) -> How:
    """Return a ``How`` that takes ours for each conflict, and adds path -> name to ``asked``."""

    def by_path(path: str) -> How:
        def policy(conflict: Conflict) -> Strategy:
            asked.setdefault(path, set()).add(conflict.name)
            return Strategy("ours")

        return How(policy)

    return replace(by_path(""), by_path=by_path)


@dataclass
class _Together:
    """Settles the tensors that the steps left in conflict, with the values of all branches."""

    session: Session
    pack: PackWriter
    heads: Sequence[str]
    how: How
    asked: dict[str, set[str]]

    def settle(self, result: Joined, base: str | None) -> None:
        self.session.expect_trees(filter(None, (base, *self.heads)))
        versions = [Versions(self.session, revision, None, None) for revision in (base, *self.heads)]
        for path, stages in result.paths.items():
            joined = self.session.manifest_or_none(stages[0])
            wanted = self.how.at(path).wants_all
            if joined is None or not (wanted or self.asked.get(joined.store)):
                continue
            before, *sides = (version.in_base(joined.store) for version in versions)
            found = [side for side in sides if side is not None]
            if len(found) > 1 and len({side.data for side in found}) > 1:
                self._merge(path, joined, before, found, result)

    def _merge(
        self, path: str, joined: Manifest, before: Manifest | None, sides: list[Manifest], result: Joined
    ) -> None:
        how = self.how.at(path)
        if not how.everything:
            asked = self.asked.get(joined.store, set())
            sides = [_only(side, joined, asked) for side in sides]
        outcome = engine.merge(
            self.session.objects, self.pack, before, sides, how.policy, how.options, how.progress
        )
        result.merged.add(path, outcome, dry_run=how.options.dry_run)


def _only(side: Manifest, joined: Manifest, asked: set[str]) -> Manifest:
    """Return ``joined`` with the tensors in ``asked`` as ``side`` has them."""
    lines: dict[str, Line] = {name: line for name, line in joined.by_name.items() if name not in asked}
    lines |= {name: line for name, line in side.by_name.items() if name in asked}
    skeleton = side.skeleton if CONTAINER in asked else joined.skeleton
    ordered = tuple(lines[name] for name in sorted(lines))
    return replace(side, lines=ordered, skeleton=skeleton, groups=())


# -- in the index and the worktree -------------------------------------------------------


def staged(session: Session) -> list[str]:
    """Return the files whose staged content differs from HEAD; they would become part of the merge."""
    outside = ("--", ":(top)", f":(exclude,top){STORES}")
    return session.repo.git().lines("diff-index", "--cached", "--name-only", "-z", "HEAD", *outside)


def stashes(session: Session, args: Sequence[str]) -> bool:
    """Return whether to stash changes for the merge: by the last option, or by ``merge.autoStash``."""
    given = [arg for arg in args if arg in ("--autostash", "--no-autostash")]
    if given:
        return given[-1] == "--autostash"
    return session.repo.config.flag("merge.autostash")


def stash(session: Session) -> None:
    """Stash changes in MERGE_AUTOSTASH; git applies them when it concludes the merge."""
    git = session.repo.git()
    if oid := git.run("stash", "create", "autostash").text.strip():
        _fs.write_atomic(session.repo.gitdir / state_files.MERGE_AUTOSTASH, f"{oid}\n".encode())
        git.run("read-tree", "--reset", "-u", "HEAD")  # ``git reset`` would drop the stash


def unstash(session: Session) -> None:
    """Apply the changes that :func:`stash` put aside, when the merge is not made."""
    place = session.repo.gitdir / state_files.MERGE_AUTOSTASH
    if place.exists():
        session.repo.git().run("stash", "apply", "--index", "--quiet", place.read_text().strip())
        _fs.remove(place)


def message(session: Session, names: Sequence[str], heads: Sequence[str]) -> str:
    """Return git's commit message for a merge of the branches ``names``."""
    rows = [_row(session, name, oid) for name, oid in zip(names or heads, heads, strict=True)]
    return session.repo.git().run("fmt-merge-msg", stdin="\n".join(rows).encode() + b"\n").text


def _row(session: Session, name: str, oid: str) -> str:
    """Return a line as in FETCH_HEAD that describes ``oid``: a branch, part of one, a tag, a commit."""
    refs = session.repo.refs
    places = (("heads", "branch"), ("tags", "tag"), ("remotes", "remote-tracking branch"))
    for place, kind in places:
        if f"refs/{place}/{name}" in refs:
            return f"{refs.target(f'refs/{place}/{name}')}\t\t{kind} '{name}' of ."
    early = _EARLIER.sub("", name)
    if early != name and f"refs/heads/{early}" in refs:
        return f"{oid}\t\tbranch '{early}' (early part) of ."
    return f"{oid}\t\tcommit '{name}'"


_EARLIER: Final = re.compile(r"(\^+|~\d+)$")


_UNFILTERED: Final = ("-c", "filter.theta.process=", "-c", "filter.theta.required=false")


def _check_out(git: Git, tree: str, checked: Sequence[str] = ()) -> None:
    """Let git check out ``tree``, with manifests in place of checkpoints.

    The filter is not run: it would write manifests too, and starting it takes longer than the rest.
    """
    command = ("read-tree", "-m", "-u", "HEAD", tree)
    if checked:
        git.run(*checked, *command, "-n")
    done = git.run(*_UNFILTERED, *command, check=False)
    if done.code < 0:  # it was killed, and left its lock file
        raise GitFailedError(command[0], done.code, "")
    if done.code:  # only the filter can tell whether a file as new as the index changed
        git.run("update-index", "-q", "--refresh", check=False)
        git.run(*command)


@dataclass(frozen=True)
class Coming:
    """The commit that is to merge ``heads`` into HEAD.

    Attributes:
        heads: the commits to merge.
        text: the message, without trailers.
        base: the commit that the user chose as the base, if any.
        squash: the commit gets one parent.
        mode: the content of MERGE_MODE: ``no-ff`` if HEAD must become a parent.
    """

    heads: Sequence[str]
    text: str
    base: str | None = None
    squash: bool = False
    mode: str = ""


def apply(session: Session, joined: Joined, coming: Coming, how: How, checked: Sequence[str] = ()) -> None:
    """Write a clean merge to index and worktree, and leave it to be committed.

    ``how`` goes into the record.  git raises an error if it would overwrite local changes; with the
    options ``checked`` also if it would overwrite untracked files.
    """
    heads, squash = coming.heads, coming.squash
    tree = in_memory.result_tree(session, joined.tree, joined.merged)
    git = session.repo.git()
    session.journal.applying(tree)
    session.journal.moving(tree)
    _check_out(git, tree, checked)
    gitdir = session.repo.gitdir
    said = f"{coming.text.rstrip()}\n".encode()
    ours, theirs = session.repo.head(), None if squash else heads[0]
    _fs.write_atomic(gitdir / state_files.ORIG_HEAD, f"{ours}\n".encode())
    now = Operation("" if squash else "merge", None, ours, theirs)
    recording.note(session, joined.merged, how, coming.base or "", squashed=heads if squash else (), now=now)
    if squash:
        _fs.write_atomic(gitdir / state_files.SQUASH_MSG, said)
    else:
        _fs.write_atomic(gitdir / state_files.MERGE_MSG, said)
        _fs.write_atomic(gitdir / state_files.MERGE_MODE, coming.mode.encode())
        _fs.write_atomic(gitdir / state_files.MERGE_HEAD, "".join(f"{head}\n" for head in heads).encode())
    recording.tell(session)
    session.journal.settled()
