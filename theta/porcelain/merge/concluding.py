"""Concluding a merge: the result comes into index and worktree, and git commits it.

``git commit`` runs the hooks of a commit, not those of a merge.  So ``git merge`` is run, with a merge
strategy of ours that leaves index and worktree as they are.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from theta import _fs
from theta.git import commit_graph, state_files
from theta.git.in_progress import Operation
from theta.git.repository import STORES
from theta.git.run import Git, GitFailedError
from theta.git.state_files import MERGE_AUTOSTASH, MERGE_HEAD, MERGE_MODE, MERGE_MSG, ORIG_HEAD, SQUASH_MSG
from theta.porcelain.drive import running
from theta.porcelain.drive.running import Driven
from theta.porcelain.merge import in_memory, recording
from theta.porcelain.merge.in_memory import Joined
from theta.porcelain.merge.joining import How
from theta.porcelain.workspace.rollback import PARKED, UNFILTERED, bring_back
from theta.porcelain.workspace.session import Session

_EARLIER: Final = re.compile(r"(\^+|~\d+)$")
_STRATEGY: Final = "theta"
_PROGRAM: Final = """\
#!/bin/sh
# The strategy of a merge that is done: git commits what is in the index.
exec mv {} {}
"""
_NEVER: Final = ("--no-log", "--no-autostash", "--allow-unrelated-histories", "--commit", "--no-squash")
"""Options that cancel what was already done or checked before the merge."""


# -- the result in index and worktree ----------------------------------------------------


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
    state_files.point(gitdir, ORIG_HEAD, str(ours))
    now = Operation("" if squash else "merge", None, ours, theirs)
    recording.note(session, joined.merged, how, coming.base or "", squashed=heads if squash else (), now=now)
    if squash:
        _fs.write_atomic(gitdir / SQUASH_MSG, said)
    else:
        _fs.write_atomic(gitdir / MERGE_MSG, said)
        _fs.write_atomic(gitdir / MERGE_MODE, coming.mode.encode())
        _fs.write_atomic(gitdir / MERGE_HEAD, "".join(f"{head}\n" for head in heads).encode())
    recording.tell(session)
    session.journal.settled()


def _check_out(git: Git, tree: str, checked: Sequence[str] = ()) -> None:
    """Let git check out ``tree``, with manifests in place of checkpoints.

    The filter is not run: it would write manifests too, and starting it takes longer than the rest.
    """
    command = ("read-tree", "-m", "-u", "HEAD", tree)
    if checked:
        git.run(*checked, *command, "-n")
    done = git.run(*UNFILTERED, *command, check=False)
    if done.code < 0:  # it was killed, and left its lock file
        raise GitFailedError(command[0], done.code, "")
    if done.code:  # only the filter can tell whether a file as new as the index changed
        git.run("update-index", "-q", "--refresh", check=False)
        git.run(*command)


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


# -- changes that are stashed meanwhile --------------------------------------------------


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
        state_files.point(session.repo.gitdir, MERGE_AUTOSTASH, oid)
        git.run("read-tree", "--reset", "-u", "HEAD")  # ``git reset`` would drop the stash


def unstash(session: Session) -> None:
    """Apply the changes that :func:`stash` put aside, when the merge is not made."""
    gitdir = session.repo.gitdir
    if oid := state_files.content(gitdir, MERGE_AUTOSTASH).strip():
        session.repo.git().run("stash", "apply", "--index", "--quiet", oid)
        state_files.remove(gitdir, MERGE_AUTOSTASH)


# -- the commit --------------------------------------------------------------------------


def commit(session: Session, names: Sequence[str], options: Sequence[str], *, aloud: bool) -> Driven:
    """Let git commit the merge of ``names`` that is in progress, on the user's terminal if ``aloud``.

    If a hook refuses, the merge stays in progress, as with git.  ``git merge`` refuses to start while
    MERGE_HEAD exists, so the file is moved away until the strategy runs.
    """
    gitdir, before = session.repo.gitdir, session.repo.head()
    head, parked = gitdir / MERGE_HEAD, session.repo.private / PARKED
    message = session.scratch() / _fs.own_temporary("message")
    _fs.write_atomic(message, (gitdir / MERGE_MSG).read_bytes())
    mode = gitdir / MERGE_MODE
    ahead = "--no-ff" if mode.exists() and mode.read_bytes().startswith(b"no-ff") else "--ff"
    command = ("merge", "-q", "-s", _STRATEGY, ahead, *_NEVER, *options, "-F", str(message))
    git = session.repo.git().with_programs(_programs(session))
    session.journal.applying(commit_graph.index_tree(session.repo) or git.run("write-tree").text.strip())
    try:
        _fs.rename(head, parked)
        return running.run(git, *command, *names, aloud=aloud)
    finally:
        bring_back(session.repo, before)
        _fs.remove(message)
        session.journal.applied()


def _programs(session: Session) -> str:
    """Write the program of the strategy and return its directory."""
    place = session.repo.private / "bin"
    program = place / f"git-merge-{_STRATEGY}"
    paths = (session.repo.private / PARKED, session.repo.gitdir / MERGE_HEAD)
    text = _PROGRAM.format(*(shlex.quote(str(path)) for path in paths)).encode("utf-8", "surrogateescape")
    if not program.exists() or program.read_bytes() != text:
        _fs.make_dirs(place)
        _fs.write_atomic(program, text, mode=0o777)
    return str(place)


def squashed(session: Session, *, aloud: bool) -> None:
    """Run the user's post-merge hook after a squash, with argument 1 as git does."""
    hook = ("hook", "run", "--ignore-missing", "post-merge", "--", "1")
    running.run(session.repo.git(), *hook, aloud=aloud)
