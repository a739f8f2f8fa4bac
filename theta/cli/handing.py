"""Commands that are git's: handed over as they stand, checkpoints brought into agreement afterwards."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

from theta.cli import aside, catalogue, console, invoking, remembering, terminal

_READ: Final = frozenset(
    (
        *("annotate", "archive", "cat-file", "check-attr", "check-ignore", "check-mailmap"),
        *("check-ref-format", "cherry", "column", "config", "count-objects", "describe", "diff-files"),
        *("diff-index", "diff-tree", "fast-export", "for-each-ref", "format-patch", "get-tar-commit-id"),
        *("grep", "interpret-trailers", "ls-remote", "merge-base", "name-rev", "patch-id", "range-diff"),
        *("remote", "request-pull", "rev-list", "rev-parse", "shortlog", "show-branch", "show-index"),
        *("show-ref", "stripspace", "var", "verify-commit", "verify-pack", "verify-tag", "version"),
        "whatchanged",
    )
)
"""Commands of git that leave commits, index and worktree as they are."""
_ALL_BRANCHES: Final = ("-a", "--all", "-r", "--remotes", "-v", "-vv", "-av", "-avv", "--verbose")
_LISTS: Final = {
    "branch": frozenset((*_ALL_BRANCHES, "-l", "--list", "--show-current")),
    "tag": frozenset(("-l", "--list")),
}
"""Commands of theta that only list, on a line of nothing but these options."""
_STORED: Final = re.compile(r'"?\.theta(/|$)')


def is_gits(name: str) -> bool:
    """Return whether git has the command ``name`` for certain, and with the same meaning."""
    return name in aside.OWN or name in _READ or name in aside.MOVE


def is_gits_alone(name: str, args: Sequence[str]) -> bool:
    """Return whether ``git NAME ARGS`` leaves alone everything that theta looks after."""
    if name in _LISTS:
        places = (Path.cwd(), *Path.cwd().parents)
        return set(args) <= _LISTS[name] and any((place / ".git").exists() for place in places)
    return name in _READ


def become_git(argv: Sequence[str]) -> NoReturn:
    """Let ``git ARGV`` take the place of this process."""
    from theta.git.run import become

    console.flush()
    become(*_of_users_files(argv))


def hand_over(argv: list[str]) -> int:
    """Run ``git ARGV``, with theta's work around it where this is a repository."""
    from theta.cli.common import session_or_none, stopped, told, uses_theta
    from theta.git.run import plain
    from theta.porcelain.drive import running

    argv = _of_users_files(argv)
    if near := _misspelled(argv[0]):
        console.err(f"error: '{argv[0]}' is not a theta command, and is not a git command")
        console.err(near)
        return 1
    if (code := aside.by_git(argv[0], argv[1:], alone=False)) is not None:
        return code
    session = session_or_none()
    if session is None:
        return plain(Path.cwd()).show(*argv)
    if argv[0] == "ls-tree" and uses_theta(session) and not any(".theta" in arg for arg in argv):
        return _without_stores(argv)
    if argv[0] == "bisect" and argv[1:2] in (["start"], ["run"]) and (left := running.left_out(session)):
        also = _of_others(left)
        console.warn(f"{left[0]} is a manifest in each step{also}; to test it: theta restore {left[0]}")
    quiet = uses_theta(session) and _ends_with_status(argv)
    with remembering.command(argv[0], argv[1:]):
        code = told(running.handed(session, argv, quiet=quiet, tell=terminal.heard, shown=terminal.progress))
    if quiet and (code == 0 or (code == 1 and session.repo.commit_of("refs/stash"))):
        invoking.invoke("status", "theta.cli.status", [])
        return code
    return stopped(session, code) if uses_theta(session) else code


def _of_others(paths: Sequence[str]) -> str:
    return f", and {len(paths) - 1} more" if len(paths) > 1 else ""


def _of_users_files(argv: Sequence[str]) -> list[str]:
    """Return ``argv`` so that git's old name of a log leaves out ``.theta/``, as the log itself does.

    What programs read (``diff-tree``, ``ls-files -s``) stays as git has it.
    """
    return [*argv, ":(exclude,top).theta"] if argv[0] == "whatchanged" else [*argv]


def _without_stores(argv: list[str]) -> int:
    """Print what ``git ls-tree`` lists, without the entries below ``.theta/``."""
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
    """Return whether git would end with its own status, which lists files below ``.theta/``."""
    is_applied = argv[0] == "stash" and argv[1:2] in (["pop"], ["apply"])
    return is_applied and not {"-q", "--quiet"} & set(argv)


def _misspelled(name: str) -> str:
    """Return the hint for a command that neither theta nor git has, nor an alias; empty for others."""
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
