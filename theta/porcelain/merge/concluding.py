"""Committing a merge that is in the index and the worktree.

``git commit`` runs the hooks of a commit, not those of a merge.  So ``git merge`` is run, with a merge
strategy of ours that leaves index and worktree as they are.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Final

from theta import _fs
from theta.git import commit_graph
from theta.git.state_files import MERGE_HEAD, MERGE_MODE, MERGE_MSG
from theta.porcelain.drive import running
from theta.porcelain.drive.running import Driven
from theta.porcelain.workspace.rollback import PARKED, bring_back
from theta.porcelain.workspace.session import Session

_STRATEGY: Final = "theta"
_PROGRAM: Final = """\
#!/bin/sh
# The strategy of a merge that is done: git commits what is in the index.
exec mv {} {}
"""
_NEVER: Final = ("--no-log", "--no-autostash", "--allow-unrelated-histories", "--commit", "--no-squash")
"""Options that cancel what was already done or checked before the merge."""


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
