"""Running git while theta does the work of its filter and hooks before and after."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Final

from theta import _fs
from theta.errors import BusyError, DiskError, NoSpaceError, ThetaError
from theta.git import options
from theta.git.run import DEFER, DEFER_FILES, Git, Heard, plain
from theta.git.state_files import FETCH_HEAD
from theta.porcelain.drive import cloning, editors, git_words, overwrites
from theta.porcelain.drive.git_words import Applying
from theta.porcelain.drive.incoming import changes, command
from theta.porcelain.setup import installing
from theta.porcelain.workspace import agreement, tracking, worktree
from theta.porcelain.workspace.exchange import Exchange
from theta.porcelain.workspace.session import Session
from theta.progress import Progress

_KILLED: Final = 129
"""Exit codes above this one mean a signal; 129 is git's own for a wrong command line."""

_MOVES: Final = ("stash", "am", "bisect")
"""Commands of git that write files of the worktree, and that theta has no part in."""

_ENTRY: Final = re.compile(r"(refs/)?stash@\{\d+\}|\d+")
"""A word that names an entry of the stash by its number."""

_KEPT: Final = "The stash entry is kept in case you need it again."
"""The line that ``git stash pop`` ends with if it cannot apply an entry."""

Showing = Callable[[str], AbstractContextManager[Progress | None]]
"""Returns a context manager that shows progress under the given name."""


@dataclass(frozen=True)
class Said:
    """The lines that git printed on standard output and standard error."""

    out: Sequence[str] = ()
    err: Sequence[str] = ()


Telling = Callable[[Said], None]
"""Passes on what git prints."""


@dataclass(frozen=True)
class Driven:
    """The result of a git command.

    Attributes:
        code: the exit code.
        said: the output, unless it went to the terminal.
        full: git failed, and the disk of the repository is full.
        notes: warnings of theta.
    """

    code: int
    said: Said = field(default_factory=Said)
    full: bool = False
    notes: Sequence[str] = ()


def unseen(_what: str) -> AbstractContextManager[None]:
    """Show no progress."""
    return nullcontext()


def run(git: Git, *args: str, aloud: bool, tell: Telling | None = None) -> Driven:
    """Run ``git ARGS``, on the user's terminal if ``aloud``.

    ``tell`` gets what it prints there of files that it merges, without those below ``.theta/``; of a pull
    or a patch only standard output, since the rest is progress.
    """
    if aloud and tell and git_words.lists_files(args):
        out = git_words.of_user(lambda line: tell(Said((line,))))
        err = git_words.of_user(lambda line: tell(Said(err=(line,))))
        return Driven(_overheard(git, args, out, err if command(args) == "merge" else None))
    if aloud:
        return Driven(git.show(*args))
    done = git.run(*args, check=False)
    lines = [data.decode("utf-8", "replace").splitlines() for data in (done.stdout, done.stderr)]
    return Driven(done.code, Said(*lines))


def overhear(git: Git, *args: str, words: Applying, aloud: bool) -> int:
    """Run ``git ARGS`` and pass what it prints to ``words``; on the user's terminal if ``aloud``."""
    if aloud:
        return _overheard(git, args, words.out, words.err)
    done = run(git, *args, aloud=False)
    for line in done.said.out:
        words.out(line)
    for line in done.said.err:
        words.err(line)
    return done.code


def _overheard(git: Git, args: Sequence[str], out: Heard, err: Heard | None) -> int:
    """Run ``git ARGS`` on the user's terminal, editors too, and hand over what it prints."""
    more = editors.on_terminal(git.environment())
    return git.overhear(*args, more=more, out=out, err=err)


def is_full(session: Session, code: int) -> bool:
    """Return whether git failed with ``code`` and the disk is full, which git does not always report."""
    return bool(code) and _fs.is_full(session.repo.commondir)


def unlock(session: Session, code: int) -> None:
    """Remove the lock files that git left if it was killed, which its exit ``code`` says."""
    if code < 0 or code > _KILLED:
        session.journal.unlock()


def ended(session: Session, code: int) -> Driven:
    """Put back the files that git had begun to write, if it failed with ``code``."""
    if not code:
        return Driven(code)
    full, left = is_full(session, code), session.journal.undo(killed=code > _KILLED)
    # A manifest stands for what git put aside to try a merge, and becomes the file again.
    changed = (path for path in left if worktree.peek(session.repo.worktree / path) is None)
    notes = tuple(f"{path} changed while git ran, and was left as it is" for path in changed)
    return Driven(code, full=full, notes=notes)


def drive(
    session: Session,
    *args: str,
    refresh: bool = True,
    hooks: bool = False,
    aloud: bool = True,
    tell: Telling | None = None,
    shown: Showing = unseen,
) -> Driven:
    """Run ``git ARGS`` with theta doing the work of its filter, and of its hooks unless ``hooks``."""
    if session.repo.is_read_only:
        return run(session.repo.git().in_directory(session.cwd), *args, aloud=aloud)
    with session.change():
        if args[0] == "pull":
            overwrites.fetch(session, args[1:])
        checked = overwrites.options(session, args)
        agreement.before_git(session)
        if not refresh:  # git aborts a merge only if the index has the stat data of its files
            session.repo.refresh_index()
        git = session.repo.git(extra=DEFER_FILES if hooks else DEFER).in_directory(session.cwd)
        renamed = options.read(git, args[0], args[1:]).words if args[0] == "mv" else []
        fetched = FETCH_HEAD if args[0] == "pull" else ""
        session.journal.moving(*args[1:], fetched, renames=tracking.renames(session, renamed))
        with Exchange(session).hold() as files:
            done = run(git, *checked, *args, aloud=aloud, tell=tell)
            stopped = ended(session, done.code)
            return replace(stopped, said=done.said, notes=(*stopped.notes, *settle(session, shown, files)))


def whole(session: Session, *args: str, shown: Showing = unseen) -> Driven:
    """Run ``git ARGS`` on the terminal with theta's filter and hooks at work, as git alone would."""
    agreement.watch(session)
    with session.journal.driving():
        git = session.repo.git(extra={}).in_directory(session.cwd)
        done = ended(session, git.show(*args))
    return replace(done, notes=(*done.notes, *after_git(session, shown)))


def handed(
    session: Session,
    argv: Sequence[str],
    *,
    quiet: bool = False,
    tell: Telling | None = None,
    shown: Showing = unseen,
) -> Driven:
    """Run a command that is git's own; ``quiet``: git does not end with its status."""
    checked = overwrites.options(session, argv)
    agreement.watch(session)
    with session.journal.driving():
        if argv[0] in _MOVES:
            session.journal.moving(*argv[1:], "refs/stash", "refs/stash^3")
        git = plain(session.cwd, marks=session.repo.marks)
        if _pops(argv) and installing.is_used(session.repo):
            code = _pop(session, git, checked, argv[2:], tell)
        else:
            words = (*checked, *argv[:2], *(["--quiet"] if quiet else []), *argv[2:])
            code = run(git, *words, aloud=True, tell=tell).code
        done = ended(session, code)
    return replace(done, notes=(*done.notes, *after_git(session, shown)))


def _pops(argv: Sequence[str]) -> bool:
    """Return whether ``git ARGV`` applies an entry of the stash and removes it, in words that are known."""
    rest = [word for word in argv[2:] if word not in ("-q", "--quiet", "--index")]
    return [*argv[:2]] == ["stash", "pop"] and len(rest) < 2 and all(map(_ENTRY.fullmatch, rest))


def _pop(
    session: Session, git: Git, before: Sequence[str], words: Sequence[str], tell: Telling | None
) -> int:
    """Run ``git BEFORE stash pop --quiet WORDS``, but remove the entry only when its files are durable.

    Git does not wait for them, so that a power failure could take the entry and the files.
    """
    named = next(filter(_ENTRY.fullmatch, words), "0")
    entry = f"refs/stash@{{{named}}}" if named.isdecimal() else named
    is_there = session.repo.commit_of(entry) is not None
    coming = {path for step in changes(session.repo, ["stash", "pop", entry]) for path, _ in step.written()}
    code = run(git, *before, "stash", "apply", "--quiet", *words, aloud=True, tell=tell).code
    if not code:
        for path in sorted(coming):
            _fs.sync(session.repo.worktree / path)
        session.journal.settled()
        return run(git, "stash", "drop", "--quiet", entry, aloud=True, tell=tell).code
    if tell is not None and is_there and code == 1:
        tell(Said((_KEPT,)))
    return code


def left_out(session: Session) -> list[str]:
    """Return the checkpoints of a lazy clone that stay manifests whatever git checks out."""
    if session.repo.is_bare:
        return []
    places = ((path, session.repo.worktree / path) for path in session.index if session.leaves(path))
    return [path for path, place in places if worktree.peek(place) is not None]


def after_git(session: Session, shown: Showing = unseen) -> list[str]:
    """Bring everything into agreement after a git command that theta does not know; return warnings."""
    if session.repo.is_read_only:
        return []
    with session.change():
        return settle(session, shown)


def fill_owed(session: Session, shown: Showing = unseen) -> list[str]:
    """Fill in the checkpoints of which a dead command left manifests; return warnings.

    One that it had filled in already may still have the size of the manifest in the index, and git, which
    compares sizes first, takes it for changed.  A sequence that goes on fills them at its end, and another
    theta that is at work may be about to.
    """
    if not session.journal.owes_files or session.repo.in_progress() or session.repo.is_read_only:
        return []
    try:
        with shown("comparing") as progress:
            worktree.refresh(session, progress)
        return after_git(session, shown)
    except (BusyError, DiskError, NoSpaceError):
        return []
    except ThetaError as error:
        session.journal.filled()  # told once: what cannot be read now cannot be later
        return [str(error)]


def settle(session: Session, shown: Showing = unseen, files: Exchange | None = None) -> list[str]:
    """Bring index, ``.theta/`` and files into agreement after a git command; return warnings.

    Submodules are included.  ``files`` has the old files open.
    """
    fresh = session.again()
    with shown("writing checkpoints") as progress:
        notes = agreement.settle(fresh, progress, exchange=files)
    return notes + fill_submodules(fresh, shown)


def fill_submodules(session: Session, shown: Showing = unseen) -> list[str]:
    """Set up the submodules that have checkpoints and write their files; return warnings."""
    notes: list[str] = []
    for inner in cloning.submodules(session):
        if not installing.is_used(inner.repo):
            cloning.drop_patterns(inner.repo)
            continue
        with inner.change(), shown("writing checkpoints") as progress:
            installing.ensure(inner.repo)
            notes += agreement.settle(inner, progress)
    return notes
