"""The ``theta`` command."""

from __future__ import annotations

import gc
import os
import sys
from typing import Final, NoReturn

_YOUNG: Final = 50_000
"""New objects that start a search for cycles: by default those of numba are gone through many times."""


def main() -> int:
    """Run the command line; the answer is the exit code."""
    gc.set_threshold(_YOUNG)
    from theta import _memory
    from theta.cli.app import run

    _memory.one_heap()
    return run(sys.argv[1:])


def script() -> NoReturn:
    """Run the command line and end this process."""
    code = main()
    from theta.cli import console

    if not console.flushed():
        sys.exit(code)  # Python says what it says then
    # To take the interpreter apart takes a quarter of a second where numba is loaded (so does mypy).
    os._exit(code)


if __name__ == "__main__":
    script()
