"""Commands that are git's: handed over as they stand, checkpoints brought into agreement afterwards."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from theta.cli import catalogue, console, invoking

_MOVES: Final = ("stash", "am", "bisect")
"""Commands of git that write files of the worktree, and that theta has no part in."""
_STORED: Final = re.compile(r'"?\.theta(/|$)')


def hand_over(argv: list[str]) -> int:
    """Run ``git ARGV``, with theta's work around it where this is a repository."""
    from theta.cli.common import after_git, ended, session_or_none, uses_theta
    from theta.git.run import plain
    from theta.porcelain.drive import overwrites

    if near := _misspelled(argv[0]):
        console.err(f"error: '{argv[0]}' is not a theta command, and is not a git command")
        console.err(near)
        return 1
    session = session_or_none()
    if session is None:
        return plain(Path.cwd()).show(*argv)
    if argv[0] == "ls-tree" and uses_theta(session) and not any(".theta" in arg for arg in argv):
        return _without_stores(argv)
    checked = overwrites.options(session, argv)
    told = uses_theta(session) and _ends_with_status(argv)
    with session.journal.driving():
        if argv[0] in _MOVES:
            session.journal.moving(*argv[1:], "refs/stash", "refs/stash^3")
        git = plain(Path.cwd(), marks=session.repo.marks)
        code = git.show(*checked, *argv[:2], *(["--quiet"] if told else []), *argv[2:])
        code = ended(session, code)
    after_git(session)
    if told and code in (0, 1):
        invoking.invoke("status", "theta.cli.status", [])
    return code


def _without_stores(argv: list[str]) -> int:
    """Print what ``git ls-tree`` lists, but for what is below ``.theta/``."""
    from theta.git.run import plain

    done = plain(Path.cwd()).run(*argv, check=False)
    end = "\0" if "-z" in argv else "\n"
    listed = done.text.split(end)[:-1]
    kept = [line for line in listed if not _STORED.match(line.rpartition("\t")[2])]
    if end == "\0":
        console.records(kept)
    elif kept:
        console.out(*kept)
    console.err(*done.stderr.decode("utf-8", "replace").splitlines())
    return done.code


def _ends_with_status(argv: list[str]) -> bool:
    """Whether git would end with its own status, which lists files below ``.theta/``."""
    is_applied = argv[0] == "stash" and argv[1:2] in (["pop"], ["apply"])
    return is_applied and not {"-q", "--quiet"} & set(argv)


def _misspelled(name: str) -> str:
    """What to say of a command that neither theta nor git has, nor an alias; empty for others."""
    from difflib import get_close_matches

    from theta.git.run import plain

    known = plain(Path.cwd()).run("--list-cmds=main,others,alias", check=False).text.split()
    if not known or name in known or name.startswith("-"):
        return ""
    if plain(Path.cwd()).run("config", "--get", "help.autocorrect", check=False).code == 0:
        return ""  # git may run what is nearest
    ours = [command for group in catalogue.COMMANDS.values() for command in group]
    near = [*get_close_matches(name, ours, 3, 0.7), *get_close_matches(name, known, 3, 0.7)]
    words = ", ".join(f"'{one}'" for one in dict.fromkeys(near))
    return f"hint: did you mean {words}?" if near else "hint: theta --help lists the commands"
