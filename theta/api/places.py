"""The place of a repository that a program opens: on this machine, or behind a URL."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from theta import _fs
from theta.errors import UsageError
from theta.git.run import DEFER, Git, redirected

_CLONE: Final = ("clone", "--quiet", "--bare", "--filter=blob:none", "--")


def is_url(text: str) -> bool:
    """Return whether git reads ``text`` as a remote: ``scheme://``, or ``host:path`` and no such file."""
    head, colon, _ = text.partition(":")
    return "://" in text or (bool(colon) and "/" not in head and not os.path.lexists(text))


def clone(url: str, stack: contextlib.ExitStack) -> Path:
    """Make a bare partial clone of ``url`` in a temporary directory of ``stack``; return where it is.

    Raises the error that git tells, and :class:`UsageError` where the environment names another repository.
    """
    if redirected():
        raise UsageError("GIT_DIR or GIT_WORK_TREE is set", hint="unset them to open a URL")
    place = stack.enter_context(_fs.temporary_directory("theta-open-"))
    Git(place, extra=DEFER).run(*_CLONE, url, "clone.git")
    return place / "clone.git"
