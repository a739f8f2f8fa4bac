"""The output of git on its way to a terminal: git's pager reads it through this module.

git escapes the control characters of paths, but passes on those of the contents that it shows: diffs of
manifests (names of tensors), messages of commits.  Into a file or a pipe git writes by itself, byte for
byte, so that a patch stays one.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Final

from theta.cli import before, console

NAMES: Final = ("log", "show", "diff", "branch", "tag")
"""Commands of theta that let git print."""
_NO_PAGER: Final = ("", "cat")
_SWITCH: Final = ("true", "false", "yes", "no", "on", "off", "0", "1", "")


def begin(name: str) -> None:
    """Let all that ``git NAME`` prints on a terminal be made safe to show, with the user's pager or none."""
    if not console.on_screen():
        return
    from theta.git.run import plain

    git = plain(Path.cwd())
    own = f"{shlex.quote(sys.executable)} -P -m {__name__}"
    asked = git.run("config", "--get", f"pager.{name}", check=False).text.strip()
    pager = git.run("var", "GIT_PAGER", check=False).text.strip()
    if asked.lower() not in _SWITCH and "GIT_PAGER" not in os.environ:
        pager = asked
    if asked.lower() in ("false", "no", "off", "0"):
        pager = ""
        before.configure(f"pager.{name}=true")
    os.environ["GIT_PAGER"] = own if pager in _NO_PAGER else f"{own} | {pager}"


def main() -> None:
    """Pass standard input on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the pager behind decides when it ends
    with contextlib.suppress(console.ReaderGoneError):
        console.pass_on()


if __name__ == "__main__":
    main()
