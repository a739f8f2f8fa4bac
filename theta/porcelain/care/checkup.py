"""``theta doctor``: what is wrong with a repository's set-up and state, and mending it.

Nothing is healed before it was looked at, and each cure is what theta's commands do anyway.  A tool that
writes commits by itself runs neither filter nor hooks; what it leaves is found here.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from theta import _fs, _notes
from theta.errors import ManifestError, MissingObjectsError, ThetaError
from theta.git import commit_graph, lfs, processes, state_files
from theta.git.quoting import split_lines
from theta.git.repository import STORES
from theta.porcelain.care import lines_of_lfs
from theta.porcelain.setup import installing
from theta.porcelain.workspace import abandoned, agreement, closures, coverage, worktree
from theta.porcelain.workspace.session import Session
from theta.progress import Progress
from theta.store import closure
from theta.store.changes import counted
from theta.store.odb import pack_keeps
from theta.units import human

_OLDEST_GIT: Final = (2, 38)
_STALE: Final = 600.0
"""Seconds after which a lock that no git is there for is stale."""
_LOCKS: Final = ("*.lock", "refs/**/*.lock", "logs/**/*.lock")
_CACHE: Final = "stat-cache.json"


@dataclass(frozen=True)
class Complaint:
    """Something that is wrong.

    Attributes:
        kind: settings, hooks, locks and so on.
        text: one line that says what is wrong.
        remedy: one line that says what mends it.
        can_be_mended: whether :func:`mend` does that.
    """

    kind: str
    text: str
    remedy: str
    can_be_mended: bool = True


def examine(session: Session) -> list[Complaint]:
    """Return what is wrong; changes nothing."""
    checks = [_versions, _locks, _caches, _folders]
    if not session.repo.is_bare and (installing.is_used(session.repo) or len(session.index)):
        checks += [_setup, _attributes, _plain_bytes, _to_lfs, _files, _stores, _agreement, _space]
    return [finding for check in checks for finding in _told(check, session)]


def mend(session: Session, progress: Progress | None = None) -> list[Complaint]:
    """Mend what can be mended; return what is still wrong."""
    repo = session.repo
    kinds = {finding.kind for finding in examine(session) if finding.can_be_mended}
    if "locks" in kinds:
        session.journal.heal()
        for place in (*_stale_locks(session), *pack_keeps.stale(session.objects.directory)):
            _fs.remove(place)
    if "folders" in kinds:
        abandoned.remove()
    if "caches" in kinds:
        _notes.drop(repo.private / _CACHE)
    if "settings" in kinds:
        installing.ensure(repo)
    if "attributes" in kinds:
        installing.ensure_attributes(repo)
    if "plain bytes" in kinds:
        _stage(session)
        kinds |= {finding.kind for finding in examine(session.again()) if finding.can_be_mended}
    if kinds & {"files", "stores", "agreement"}:
        fresh = session.again()
        with contextlib.suppress(ManifestError), fresh.change():  # one that cannot be read is found again
            agreement.settle(fresh, progress)
    return examine(session.again())


def _told(check: Callable[[Session], Iterator[Complaint]], session: Session) -> list[Complaint]:
    """Return the findings of one check; a check that fails is one."""
    try:
        return list(check(session))
    except ThetaError as error:
        return [Complaint("repository", str(error), error.hint or "'theta fsck' tells more", False)]


def _versions(session: Session) -> Iterator[Complaint]:
    said = session.repo.git().run("version", check=False).text
    found = re.search(r"(\d+)\.(\d+)", said)
    if found is None or (int(found[1]), int(found[2])) < _OLDEST_GIT:
        yield Complaint(
            "versions", f"theta needs git 2.38, and this is {said.strip()}", "install a newer git", False
        )


def _locks(session: Session) -> Iterator[Complaint]:
    if session.journal.is_left:
        yield Complaint("locks", "a theta command was killed, and what it began is not undone", "undo it")
    for keep in pack_keeps.stale(session.objects.directory):
        yield Complaint("locks", f"{keep.name} keeps a pack for a theta that was killed", f"remove {keep}")
    for lock in _stale_locks(session):
        minutes = int((time.time() - lock.stat().st_mtime) / 60)
        yield Complaint(
            "locks", f"{lock.name} is {minutes} minutes old, and no git is at work", f"remove {lock}"
        )


def _stale_locks(session: Session) -> list[Path]:
    """Return the lock files of git that are old, unless a git is at work here.

    A git in any worktree may hold those that the worktrees share.
    """
    repo = session.repo
    own = (repo.gitdir, repo.commondir, *([] if repo.is_bare else [repo.worktree]))
    users = {repo.gitdir: own, repo.commondir: (*own, *state_files.worktrees(repo.commondir))}
    found = ((_old_locks(place), worktrees) for place, worktrees in users.items())
    return [
        lock for locks, worktrees in found if locks and not processes.gits_in(*worktrees) for lock in locks
    ]


def _old_locks(place: Path) -> list[Path]:
    found = {lock for pattern in _LOCKS for lock in place.glob(pattern)}
    return [lock for lock in sorted(found) if lock.is_file() and lock.stat().st_mtime < time.time() - _STALE]


def _caches(session: Session) -> Iterator[Complaint]:
    place = session.repo.private / _CACHE
    if place.exists() and not _notes.read_json(place):
        yield Complaint("caches", "the cache of what files hold cannot be read", "remove it")


def _folders(_session: Session) -> Iterator[Complaint]:
    for folder in abandoned.folders():
        yield Complaint("folders", f"{folder} is of a theta command that was killed", "remove it")


def _setup(session: Session) -> Iterator[Complaint]:
    for part in installing.missing(session.repo):
        yield Complaint("settings", f"{part}: missing, or not that of this theta", "set it")
    if (other := installing.passed_over(session.repo)) is not None:
        text = f"core.hooksPath of the environment is {other}: plain git runs none of theta's hooks"
        yield Complaint("hooks", text, "unset it; or set it by 'git config' and run 'theta install'", False)
    if (session.repo.worktree / STORES).is_dir():
        text = f"{STORES}/ is in the worktree, which a tool without sparse checkouts wrote"
        yield Complaint("stores", text, "remove what the repository has of it")


def _attributes(session: Session) -> Iterator[Complaint]:
    place = session.repo.worktree / ".gitattributes"
    lines = split_lines(place.read_text(errors="replace")) if place.exists() else []
    if session.index.manifests and installing.STORE_ATTRIBUTES not in lines:
        yield Complaint("attributes", f".gitattributes has no rule for {STORES}/", "write it; then commit it")


def _plain_bytes(session: Session) -> Iterator[Complaint]:
    """Find tracked files in the index that are no manifests: what wrote them ran no filter."""
    for path, one in session.index.items():
        if path in session.index.manifests:
            continue
        if (error := session.malformed(one.oid)) is not None:
            yield Complaint("manifests", f"{path}: {error}", error.hint or "'theta fsck' tells more", False)
        elif coverage.is_pointer(session.repo, one.oid):
            yield Complaint("plain bytes", f"{path} is a pointer of Git LFS", lfs.FETCH, False)
        else:
            text = f"{path} is stored as plain bytes: what committed or staged it ran no filter"
            is_same = _is_as_staged(session, path, one.oid)
            remedy = (
                "stage it as a checkpoint; then commit it"
                if is_same
                else f"'theta add {session.word(path)}', then commit it"
            )
            yield Complaint("plain bytes", text, remedy, is_same)


def _to_lfs(session: Session) -> Iterator[Complaint]:
    """Find checkpoints that a line gives to Git LFS, unless it stood there before theta came."""
    held = {} if session.repo.is_read_only else lines_of_lfs.found(session)
    for place in dict.fromkeys(claim.place for claim in held.values()):
        same = {path: claim for path, claim in held.items() if claim.place == place}
        more = f" and {len(same) - 1} more" if len(same) > 1 else ""
        text = f"{next(iter(same))}{more} goes to Git LFS by {place}"
        remedy = f"{coverage.override(session, [*same])}; then 'theta add' and commit"
        yield Complaint("attributes", text, remedy, False)


def _is_as_staged(session: Session, path: str, oid: str) -> bool:
    done = session.repo.git().run("hash-object", "--no-filters", "--", path, check=False)
    return done.text.strip() == oid


def _stage(session: Session) -> None:
    """Stage the files that are in the index as plain bytes and are the same in the worktree.

    A file that theta cannot read is left, and the others are staged.
    """
    args = ("--literal-pathspecs", "add", "--renormalize", "--pathspec-from-file=-", "--pathspec-file-nul")
    git = session.repo.git(extra={}).in_directory(session.repo.worktree)
    names = [f"{path}\0".encode("utf-8", "surrogateescape") for path in _mendable(session)]
    if names and git.run(*args, stdin=b"".join(names), check=False).code:
        for name in names:
            git.run(*args, stdin=name, check=False)


def _mendable(session: Session) -> list[str]:
    """Return the files in the index as plain bytes that are the same in the worktree."""
    return [path for path in coverage.plain(session) if _is_as_staged(session, path, session.index[path].oid)]


def _files(session: Session) -> Iterator[Complaint]:
    """Find manifests that stand in the worktree in place of their files, if they are not left there."""
    here = (path for path in session.index if worktree.peek(session.repo.worktree / path) is not None)
    found = [path for path in here if not session.leaves(path)]
    if found:
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        yield Complaint("files", f"{found[0]}{more}: a manifest stands in place of the file", "fill it in")


def _stores(session: Session) -> Iterator[Complaint]:
    held = {
        entry.path: (entry.oid, True)
        for entry in session.repo.read_index()
        if entry.path.startswith(f"{STORES}/")
    }
    if closures.is_as_committed(session, session.index):
        return  # the index has what HEAD has, of which _agreement tells
    wrong = closure.wrong(held, session.index.manifests.values(), session.repo.format)
    if wrong and not session.index.conflicts:
        text = f"{STORES}/ in the index lacks {counted(len(wrong), 'tensor')} of its manifests"
        yield Complaint("stores", text, "rebuild it from the manifests")


def _agreement(session: Session) -> Iterator[Complaint]:
    head = session.repo.head()
    try:
        if head is None or session.repo.in_progress() or closures.head_holds(session):
            return
        text = f"{STORES}/ of commit {head[:12]} does not agree with its manifests"
        known = head not in commit_graph.unpublished(session.repo, [head])
        others = (
            "the next commit has it right; 'theta fsck --mend' rewrites this one, though others may have it"
        )
        remedy = others if known else "rewrite the commit"
        yield Complaint("agreement", text, remedy, not known)
    except (ManifestError, MissingObjectsError) as error:
        yield Complaint("agreement", f"HEAD: {error}", "'theta fsck' tells more", False)


def _space(session: Session) -> Iterator[Complaint]:
    free = _fs.free_space(session.repo.commondir)
    largest = max((manifest.nbytes for manifest in session.index.manifests.values()), default=0)
    if free < largest:
        text = f"{human(free)} are free on this disk, less than the largest checkpoint ({human(largest)})"
        yield Complaint(
            "space", text, "'theta du' tells what costs most, 'theta gc' frees what nothing needs", False
        )
