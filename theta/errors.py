"""The errors that theta raises, and their exit codes.

Every error has one line for the user, a named exit code, and usually a hint.  Any other exception is a bug
in theta and is reported as one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from enum import IntEnum
from heapq import nlargest
from typing import ClassVar, Final


class ExitCode(IntEnum):
    """The exit codes of the ``theta`` command; part of its interface."""

    OK = 0
    DIFFERENCES = 1
    USAGE = 2
    FAILED = 3
    NOT_A_REPOSITORY = 10
    UNSUPPORTED_REPOSITORY = 11
    NO_IDENTITY = 12
    NOT_FOUND = 13
    WOULD_OVERWRITE = 14
    NO_WORKTREE = 15
    BUSY = 21
    CHANGED_WHILE_READ = 22
    BAD_MANIFEST = 23
    NEWER_FORMAT = 24
    NO_SPACE = 28
    IO_ERROR = 29
    UNTRUSTED_OWNER = 50
    BAD_SIGNATURE = 51
    NOT_SIGNED = 52
    BUG = 70
    CORRUPT = 90
    MISSING_OBJECTS = 91
    DAMAGED_REPOSITORY = 128
    INTERRUPTED = 130
    BROKEN_PIPE = 141
    TERMINATED = 143


MALFORMED: Final = (
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    RecursionError,
    OverflowError,
)
"""The errors of taking a parsed document of a stranger apart; ``int`` of JSON's 1e999 is an OverflowError."""


_LOOKED_AT: Final = 200


class ThetaError(Exception):
    """An error that the user can solve, with one line, a hint and an exit code.

    ``details`` are further lines, each shown as a hint before the hint.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.FAILED

    def __init__(self, message: str, *, hint: str = "", details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.hint = hint
        self.details = tuple(details)
        for line in filter(None, (*self.details, hint)):
            self.add_note(f"hint: {line}")  # below the traceback of a program

    def concern(self, what: str) -> None:
        """Prefix the message with ``what``, the subject of the error, unless it has it already."""
        said = f" {self}".replace(f":{what}: ", f" {what}: ")
        if what and f" {what}: " not in said:
            self.args = (f"{what}: {self}",)


class UsageError(ThetaError):
    """The command line makes no sense."""

    exit_code = ExitCode.USAGE


class NotARepositoryError(ThetaError):
    """There is no Git repository here."""

    exit_code = ExitCode.NOT_A_REPOSITORY


class UnsupportedRepositoryError(ThetaError):
    """The repository uses a Git feature that theta cannot write safely."""

    exit_code = ExitCode.UNSUPPORTED_REPOSITORY


class DamagedRepositoryError(ThetaError):
    """Git's own files (refs, HEAD, packs) are damaged; the exit code is git's."""

    exit_code = ExitCode.DAMAGED_REPOSITORY


class IdentityError(ThetaError):
    """Git does not know who the author is."""

    exit_code = ExitCode.NO_IDENTITY


class BadSignatureError(ThetaError):
    """A signature is not of what is here, or not of the key that it names."""

    exit_code = ExitCode.BAD_SIGNATURE


class NotSignedError(ThetaError):
    """Nothing is signed, or by none of the keys that are known."""

    exit_code = ExitCode.NOT_SIGNED


class NotFoundError(ThetaError):
    """A path, a revision or a tensor does not exist."""

    exit_code = ExitCode.NOT_FOUND


class NoSuchTensorError(NotFoundError, KeyError):
    """A checkpoint has no tensor of that name; a ``KeyError`` for those who take it for a mapping."""

    __str__ = Exception.__str__


class NoSuchCheckpointError(NotFoundError, KeyError):
    """A step of a run has no checkpoint of that path; a ``KeyError`` for those who take it for a mapping."""

    __str__ = Exception.__str__


class WouldOverwriteError(ThetaError):
    """A file that was not committed would be lost."""

    exit_code = ExitCode.WOULD_OVERWRITE


class RefusedError(ThetaError):
    """Refused as git refuses it: in its words, line by line, and with its exit code."""

    exit_code = ExitCode.DIFFERENCES


class NoWorktreeError(ThetaError):
    """The command needs a working tree and the repository is bare."""

    exit_code = ExitCode.NO_WORKTREE


class BusyError(ThetaError):
    """Another process holds a lock, or won a race."""

    exit_code = ExitCode.BUSY


class ChangedWhileReadError(ThetaError):
    """A file changed or disappeared while theta read it; nothing was stored."""

    exit_code = ExitCode.CHANGED_WHILE_READ


class ManifestError(ThetaError):
    """A manifest or another text of theta's format is malformed."""

    exit_code = ExitCode.BAD_MANIFEST


class NewerFormatError(ThetaError):
    """Written by a newer theta than this one."""

    exit_code = ExitCode.NEWER_FORMAT


class NoSpaceError(ThetaError):
    """The disk is full, or would be."""

    exit_code = ExitCode.NO_SPACE


class DiskError(ThetaError):
    """The operating system could not read or write."""

    exit_code = ExitCode.IO_ERROR


class EngineError(ThetaError):
    """An engine cannot be used, or loses its workers."""

    exit_code = ExitCode.FAILED


class UntrustedOwnerError(ThetaError):
    """The repository belongs to another user (CVE-2022-24765)."""

    exit_code = ExitCode.UNTRUSTED_OWNER


class TooLargeError(ThetaError):
    """A tensor has more chunks than its record can list."""


class CorruptError(ThetaError):
    """Stored bytes are not what their digest says."""

    exit_code = ExitCode.CORRUPT


class PointerError(ThetaError):
    """A pointer file of Git LFS stands where a checkpoint belongs."""

    exit_code = ExitCode.FAILED


class MissingObjectsError(ThetaError):
    """Objects that a checkpoint needs are not in this repository."""

    exit_code = ExitCode.MISSING_OBJECTS


class NotHereYetError(MissingObjectsError):
    """Objects that a remote owes a partial clone did not come."""


class CodecError(CorruptError):
    """An encoded chunk cannot be decoded: truncated, malformed or hostile."""


class FormatError(ThetaError):
    """A file is not what its container format demands; a new one is tracked as plain bytes."""


@contextlib.contextmanager
def concerning(what: str, *kinds: type[ThetaError]) -> Iterator[None]:
    """Prefix errors (of ``kinds``, or all) of the block with ``what``, a path or ``REV:PATH``."""
    try:
        yield
    except ThetaError as error:
        if isinstance(error, kinds or ThetaError):
            error.concern(what)
        raise


def in_short(error: BaseException) -> str:
    """Return the type and the text of another package's error on one line, at most 200 characters of it."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``did you mean X?`` for the most similar one of ``known``; "" if none is similar.

    Of more than 200 only those are looked at closely that begin and end most like ``word``.
    """
    from difflib import get_close_matches

    word = word.lower()
    by_lower = {one.lower(): one for one in known}
    likely = nlargest(_LOOKED_AT, by_lower, lambda one: _common(one, word) + _common(one[::-1], word[::-1]))
    close = get_close_matches(word, likely, 1, 0.6)
    return f"did you mean {by_lower[close[0]]}?" if close else ""


def _common(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (left, right) in pairs if left != right), min(len(one), len(other)))


def no_tensor(name: str, known: Collection[str], otherwise: str = "") -> NotFoundError:
    """Return the error of a tensor or glob that is none of the names ``known``.

    The hint is the most similar one, else ``otherwise``, else the first of them.
    """
    some = f"it has {len(known)}, such as {next(iter(known))}" if known else ""
    return NotFoundError(f"there is no tensor {name}", hint=did_you_mean(name, known) or otherwise or some)
