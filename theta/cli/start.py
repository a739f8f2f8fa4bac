"""The first steps of a process of ``theta``: three streams, and the names of files."""

from __future__ import annotations

import os
import sys
from typing import Final

MOST_WORKERS: Final = 3
"""The largest number of processes that compile kernels in parallel with a command."""
_BLAS_THREADS: Final = "OPENBLAS_NUM_THREADS"


def open_streams() -> None:
    """Open the standard streams that the caller closed, whose numbers the next files would take."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            from theta import _fs

            setattr(sys, name, _fs.nowhere(number, mode))


def speak_utf8() -> None:
    """Start again in UTF-8 mode where the locale has another encoding; what is printed keeps the locale's.

    git's names of files are bytes, most of them UTF-8.  Python would read them as Latin-1, or refuse them.
    """
    if sys.getfilesystemencoding() == "utf-8":
        return
    os.environ["PYTHONUTF8"] = "1"
    os.environ.setdefault("PYTHONIOENCODING", sys.stdout.encoding)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def compile_ahead() -> None:
    """Begin to compile kernels in the background, but not for continuous integration, which may use none."""
    from theta._kernels import warming

    if not os.environ.get("CI"):
        warming.begin()


def allow_workers() -> None:
    """Let this command and its children compile kernels on the other processors too."""
    count = min(MOST_WORKERS, max(1, len(os.sched_getaffinity(0)) - 1))
    os.environ.setdefault("THETA_KERNEL_WORKERS", str(count))


def begin_no_threads() -> None:
    """Let numpy's BLAS begin no threads: theta uses none, and each is busy for 50 ms before it waits.

    Children get ``os.environ``, which does not have the variable, and their usual number of threads.
    """
    if _BLAS_THREADS not in os.environ:
        os.putenv(_BLAS_THREADS, "1")
