"""Commits of files that a command made of versions; a trailer tells which, and how."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from theta.errors import MALFORMED, UsageError
from theta.porcelain.drive import renewing
from theta.porcelain.merge import trailers
from theta.porcelain.stage import saved_tree
from theta.porcelain.stage.commit_writer import CommitWriter
from theta.porcelain.stage.saved_tree import File
from theta.porcelain.workspace.session import Change, Session

T = TypeVar("T")


def write(
    session: Session,
    change: Change,
    head: str,
    files: Mapping[str, File],
    subject: str,
    told: str,
    command: str,
) -> str:
    """Commit ``files`` in place of those of ``head``, and move HEAD from there; return the commit.

    ``told`` is the trailer; the reflog names the ``command``.
    Raises :class:`RefusedError` if HEAD moved meanwhile.
    """
    tree = saved_tree.write(session, change.pack, head, files).tree
    text = trailers.with_trailers(session.repo, f"{subject}\n".encode(), [told])
    new = CommitWriter().write(session, change, tree, head, text.decode("utf-8", "surrogateescape"))
    renewing.commit(session, new, head, f"{command}: {subject}")
    return new


def recorded(session: Session, oid: str, key: str, parse: Callable[[str], T]) -> T | None:
    """Return what ``parse`` makes of the last trailer ``key`` of commit ``oid``; None when it has none.

    Raises :class:`UsageError` if the trailer is malformed.  Nobody has checked the names in it.
    """
    lines = trailers.values(session, oid, key)
    if not lines:
        return None
    try:
        return parse(lines[-1])
    except (*MALFORMED, StopIteration, UsageError) as error:
        raise UsageError(f"{oid[:12]} has a malformed {key} trailer") from error
