"""Continuing git's rebase, cherry-pick and revert after stops caused only by checkpoints.

Git applies, commits and keeps the state; theta settles checkpoints in conflict and lets git continue.
HEAD is never rewritten in between.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Final

from theta import _fs
from theta.git import in_progress, state_files
from theta.git.backends.index_entries import Staged
from theta.git.run import DEFER, Git
from theta.porcelain.workspace import agreement
from theta.porcelain.workspace.session import Session

ENDS: Final = {"--abort", "--quit", "--show-current-patch", "--edit-todo"}
_EDITS: Final = {"-e", "--edit"}
_NO_EDITS: Final = {"--no-edit"}
_FILES: Final = {0o100644, 0o100755}


def git(session: Session, name: str, extra: Mapping[str, str] | None = None) -> Git:
    """Return a runner of git for the operation ``name``.

    A rebase runs with filter and hooks: its exec commands must see files instead of manifests, and the
    post-rewrite hook gets the list of rewritten commits.  For the others theta does that work itself.
    """
    if name == "rebase":
        return Git(session.cwd, extra=extra, marks=session.repo.marks)
    return session.repo.git(extra={**DEFER, **(extra or {})}).in_directory(session.cwd)


def is_under_way(session: Session, name: str) -> bool:
    """Return whether ``name`` (rebase, cherry-pick or revert) is in progress."""
    return in_progress.current(session.repo).name == name


def quiet_editor(session: Session, name: str, args: list[str]) -> dict[str, str]:
    """Return the environment without an editor for a step that theta continues.

    It is empty if the user asked for an editor.  In a rebase the editor is replaced for this step only:
    a later ``reword`` opens it.
    """
    if name == "rebase":
        return _until_next_step(session)
    asked = bool(_EDITS & set(args)) if name == "cherry-pick" else not _NO_EDITS & set(args)
    return {} if asked else {"GIT_EDITOR": ":"}


def _until_next_step(session: Session) -> dict[str, str]:
    done = session.repo.gitdir / state_files.REBASE_DONE
    if not done.exists():
        return {}
    count = done.read_bytes().count(b"\n")
    editor = session.repo.git().run("var", "GIT_EDITOR", check=False).text.strip() or "false"
    now = f"$(grep -c '' < {shlex.quote(str(done))})"
    return {"GIT_EDITOR": f'step() {{ if [ "{now}" != {count} ]; then {editor} "$@"; fi; }}; step'}


def favour(session: Session, side: str) -> None:
    """Settle files other than checkpoints that git left in conflict, as its ``-X ours|theirs`` does.

    The option is not given to git itself, which would mix the hunks of two manifests.
    """
    tracked = session.index.stages
    settled = {
        path: stages
        for path, stages in session.repo.unmerged().items()
        if path not in tracked
        and {2, 3} <= stages.keys()
        and all(entry.mode in _FILES for entry in stages.values())
    }
    with session.change() as change:
        for path, stages in settled.items():
            oid = _merged(session, [stages[n].oid if n in stages else None for n in (2, 1, 3)], side)
            change.index.put(Staged(path, oid, stages[2].mode))
    if settled:
        paths = "".join(f"{path}\0" for path in settled).encode("utf-8", "surrogateescape")
        session.repo.git().run("checkout-index", "-f", "-u", "-z", "--stdin", stdin=paths)


def _merged(session: Session, oids: list[str | None], side: str) -> str:
    """Return the id of the merged file of ``oids`` (ours, base, theirs), or ``side`` if binary."""
    places = []
    for name, oid in zip(("ours", "base", "theirs"), oids, strict=True):
        places.append(session.scratch() / _fs.own_temporary(f"favour_{name}"))
        _fs.write_atomic(places[-1], session.repo.read_blob(oid) if oid else b"", durable=False)
    try:
        done = session.repo.git().run("merge-file", "-p", f"--{side}", *map(str, places), check=False)
    finally:
        for place in places:
            _fs.remove(place)
    if done.code:
        return oids[0 if side == "ours" else 2] or ""
    return session.repo.write_blob(done.stdout)


def drop_empty(session: Session) -> bool:
    """End a single revert that changes nothing, as git's own ``-X`` does; return whether it was one."""
    if state_files.exists(session.repo.gitdir, state_files.SEQUENCER):
        return False
    if session.repo.git().run("diff", "--cached", "--quiet", "HEAD", check=False).code:
        return False
    session.repo.git().run("revert", "--quit")
    return True


def finish(session: Session, name: str, before: str | None) -> list[str]:
    """Mend the commits that git made since ``before``; return the lines to show.

    A rebase is mended by the post-rewrite hook instead.
    """
    if session.repo.in_progress():
        return []
    new = made(session, name, before)
    return agreement.mend_noted(session, set(new)) if new else []


def made(session: Session, name: str, before: str | None) -> list[str]:
    """Return the commits that a pick or a revert made since ``before``, the first one first."""
    head = session.repo.head()
    if name == "rebase" or not before or head in (None, before):
        return []
    return session.repo.git().run("rev-list", "--reverse", f"{before}..HEAD").text.split()
