"""Which patterns are tracked: the lines of ``.gitattributes``."""

from __future__ import annotations

from typing import Final

from theta import _fs
from theta.errors import NotFoundError, UsageError
from theta.git.attributes import filter_of
from theta.porcelain import install, staging
from theta.porcelain.session import Session

SUFFIX: Final = "filter=theta diff=theta -text"


def _line(pattern: str) -> str:
    return f'"{pattern}" {SUFFIX}' if any(c in pattern for c in ' \t"') else f"{pattern} {SUFFIX}"


def patterns(session: Session) -> list[str]:
    """The patterns that the root ``.gitattributes`` gives to theta."""
    path = session.repo.worktree / ".gitattributes"
    lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
    return [line.rsplit(" " + SUFFIX, 1)[0].strip('"') for line in lines if line.endswith(" " + SUFFIX)]


def track(session: Session, wanted: list[str]) -> list[str]:
    """Add patterns, stage ``.gitattributes``, set up this clone; answers what was new.

    Raises :class:`UsageError` where another filter (Git LFS, say) would win over theta's, and
    leaves everything as it was then.
    """
    for pattern in wanted:
        if not pattern or pattern.startswith(("!", ".theta")) or "\n" in pattern:
            raise UsageError(f"not a pattern that can be tracked: {pattern!r}")
    path = session.repo.worktree / ".gitattributes"
    before = path.read_bytes() if path.is_file() else None
    new = [pattern for pattern in wanted if pattern not in patterns(session)]
    install.ensure_attributes(session.repo, [_line(pattern) for pattern in new])
    try:
        _refuse_other_filters(session, wanted)
    except UsageError:
        _put_back(session, before)
        raise
    install.ensure(session.repo)
    session.repo.git().run("add", "--", ".gitattributes")
    return new


def _refuse_other_filters(session: Session, wanted: list[str]) -> None:
    files = session.repo.git().lines("ls-files", "-z", "-c", "-o", "--exclude-standard")
    plain = [pattern for pattern in wanted if not any(c in pattern for c in "*?[")]
    attributes = filter_of(session.repo, [*files, *plain])
    ours = set(
        session.repo.git().lines("ls-files", "-z", "-c", "-o", "--exclude-standard", "--", *_globs(wanted))
    )
    for name in [path for path in attributes if path in ours or path in plain]:
        if attributes[name] != "theta":
            raise UsageError(
                f"{name} has filter={attributes[name]} from another line of the attributes",
                hint="remove that line first; two filters cannot share a file",
            )


def _globs(wanted: list[str]) -> list[str]:
    return [f":(glob){pattern}" if "/" in pattern else f":(glob)**/{pattern}" for pattern in wanted]


def _put_back(session: Session, before: bytes | None) -> None:
    path = session.repo.worktree / ".gitattributes"
    if before is None:
        _fs.remove(path)
    else:
        _fs.write_atomic(path, before)


def untrack(session: Session, unwanted: list[str]) -> list[str]:
    """Remove patterns; answers the checkpoints that become plain files."""
    known = patterns(session)
    for pattern in unwanted:
        if pattern not in known:
            raise NotFoundError(f"{pattern} is not a tracked pattern", hint="'theta track' lists them")
    before = set(session.staged())
    path = session.repo.worktree / ".gitattributes"
    drop = {_line(pattern) for pattern in unwanted}
    kept = [line for line in path.read_text().splitlines() if line not in drop]
    _fs.write_atomic(path, ("\n".join(kept) + "\n").encode())
    session.repo.git().run("add", "--", ".gitattributes")
    gone = sorted(before - set(session.staged()))
    if gone:
        session.repo.git(extra={}).run("add", "--renormalize", "--", *(f":(top,literal){p}" for p in gone))
    staging.sync(session)
    return gone


def raw_files(session: Session) -> list[str]:
    """Tracked files that are in the index as plain bytes."""
    return [p for p, e in session.staged().items() if session.manifest_or_none(e.oid) is None]
