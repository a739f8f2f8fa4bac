"""The user's pager: what is printed on a terminal goes through it.

git escapes the control characters of paths, but passes on those of the contents that it shows: diffs of
manifests (names of tensors), messages of commits.  So a process of this module stands before the pager, or
alone without a pager.  Into a file or a pipe git writes by itself, byte for byte, so that a patch stays
one.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from theta.cli import before, console
from theta.errors import ExitCode
from theta.git.quoting import visible_of_git
from theta.lazy import Module

if TYPE_CHECKING:
    from theta.git import run
else:
    run = Module("theta.git.run")

NAMES: Final = ("log", "show", "diff", "branch", "tag")
"""Commands of theta that let git print."""
_USUALLY: Final = ("log", "show", "diff", "blame", "runs", "du", "help")
"""Reports that go to the pager unless ``pager.NAME`` says otherwise."""
REPORTS: Final = (*_USUALLY, "status", "ls-files", "cat", "scan", "fsck", "gc", "doctor", "lineage")
"""Commands that print something to read, and ask nothing."""
_NO_PAGER: Final = ("", "cat")
_ON: Final = ("true", "yes", "on", "1", "")
_OFF: Final = ("false", "no", "off", "0")
_OF_SHELL: Final = frozenset("|&;<>()$`\\\"' \t\n*?[#~=%")
"""Characters for which git starts a command by the shell."""
_DEFAULTS: Final = {"LESS": "FRX", "LV": "-c"}
"""Variables that git gives the pager unless they are set: less ends by itself where one screen is enough."""


def begin(name: str) -> None:
    """Let all that ``git NAME`` prints on a terminal be made safe to show, with the user's pager or none."""
    if not console.on_screen():
        return
    asked, pager = _settings(name)
    if asked.lower() in _OFF:
        pager = ""
        before.configure(f"pager.{name}=true")
    os.environ["GIT_PAGER"] = _behind_own(pager)


def report(name: str, work: Callable[[], int]) -> int:
    """Do ``work``, which prints, and return its exit code.

    On a terminal the user's pager gets what a report prints.  Whoever leaves the pager has read enough.
    """
    if not (before.paginates or name in REPORTS) or not console.on_screen():
        return work()
    asked, pager = _settings(name)
    wanted = before.paginates or (name in _USUALLY if not asked else asked.lower() not in _OFF)
    if name not in NAMES and (not wanted or pager in _NO_PAGER):
        return work()
    try:
        with _reading(_behind_own(pager if wanted else "")):
            code = work()
    except console.ReaderGoneError:
        return 0
    return 0 if code == ExitCode.BROKEN_PIPE else code


def _settings(name: str) -> tuple[str, str]:
    """Return the setting ``pager.NAME``, and the pager that git would start."""
    git = run.plain(Path.cwd())
    asked = git.run("config", "--get", f"pager.{name}", check=False)
    pager = git.run("var", "GIT_PAGER", check=False).text.strip()
    text = asked.text.strip()
    if text.lower() not in (*_ON, *_OFF) and "GIT_PAGER" not in os.environ:
        pager = text
    return text if asked.code or text else "true", pager if _can_start(pager) else ""


def _can_start(pager: str) -> bool:
    """Return whether there is such a program; one word is started by git without the shell."""
    return bool(_OF_SHELL.intersection(pager)) or shutil.which(pager) is not None


def _behind_own(pager: str) -> str:
    """Return the command of a pager that gets nothing but what is safe to show."""
    own = f"{shlex.quote(sys.executable)} -P -m {__name__}"
    return own if pager in _NO_PAGER else pager if pager.startswith(own) else f"{own} | {{ {pager}\n}}"


@contextlib.contextmanager
def _reading(command: str) -> Iterator[None]:
    """Let a pager have what this process and its children write on standard output, until it ends."""
    console.flush()
    os.environ.setdefault("COLUMNS", str(shutil.get_terminal_size().columns))
    os.environ["GIT_PAGER_IN_USE"] = "true"
    terminal = os.dup(1)
    child = run.pager(command, _DEFAULTS)
    assert child.stdin is not None
    os.dup2(child.stdin.fileno(), 1)
    child.stdin.close()
    console.paged = True
    try:
        yield
    finally:
        _finish()
        console.paged = False
        os.dup2(terminal, 1)
        os.close(terminal)
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the pager decides when it ends
        child.wait()
        signal.signal(signal.SIGINT, handler)


def _pass_on() -> None:
    """Print standard input, which is what git and theta print, safe to show and with its colours."""
    with console.writing():
        for line in sys.stdin.buffer:
            sys.stdout.buffer.write(visible_of_git(os.fsdecode(line)).encode())
        sys.stdout.buffer.flush()


def _finish() -> None:
    """Flush everything that was printed; what a reader that went away did not read goes nowhere."""
    try:
        console.flush()
    except console.ReaderGoneError:
        console.silence(sys.stdout)


def main() -> None:
    """Pass standard input on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the pager behind decides when it ends
    with contextlib.suppress(console.ReaderGoneError):
        _pass_on()
    _finish()


if __name__ == "__main__":
    main()
