"""``theta average``: the mean of versions of a checkpoint along the history."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from theta import _fs, _room
from theta.errors import NotFoundError, UsageError
from theta.git.object_values import differing
from theta.git.quoting import visible
from theta.git.repository import STORES
from theta.lazy import Module
from theta.merging import averages, recipe_line
from theta.merging.averages import Averaging
from theta.porcelain.drive import renewing
from theta.porcelain.lineage import told_commit
from theta.porcelain.merge import dry_run
from theta.porcelain.stage.saved_tree import File, StoredFile
from theta.porcelain.tensors import converting
from theta.porcelain.workspace import exchange
from theta.porcelain.workspace.session import Session
from theta.progress import Progress
from theta.store.format.manifest import Manifest
from theta.store.read.coming_file import ComingFile
from theta.store.read.reassembly import Restorer

if TYPE_CHECKING:
    from theta.engine import average_parts, restore_parts
    from theta.engine.average_parts import AverageWorkers
else:
    average_parts = Module("theta.engine.average_parts")
    restore_parts = Module("theta.engine.restore_parts")

TRAILER: Final = "Theta-Average"
_UNIFORM: Final = "uniform"


@dataclass(frozen=True)
class AverageRequest:
    """Versions that are averaged.

    Attributes:
        revisions: ranges such as ``v1..main``, and commits, in the order in which they count.
        path: the checkpoint; "" for the only one.
        shape: how much each version counts (:func:`averages.coefficients`).
        last: only that many versions, the newest; 0 for all.
    """

    revisions: Sequence[str]
    path: str = ""
    shape: str = _UNIFORM
    last: int = 0


@dataclass(frozen=True)
class VersionPlan:
    """The versions of a mean, oldest first, with what they count.

    Attributes:
        path: the checkpoint.
        commits: the first commit in the request with each version.
        factors: how much each counts.
        averaging: computes the mean.
        manifests: the id of each manifest.
    """

    path: str
    commits: Sequence[str]
    factors: Sequence[float]
    averaging: Averaging
    manifests: Sequence[str]


def plan(session: Session, request: AverageRequest) -> VersionPlan:
    """Find the versions; commits of a range that leave the checkpoint alone are none.

    Raises:
        NotFoundError: a revision or a checkpoint is not there.
        UsageError: there are fewer than two versions, or they cannot be averaged.
    """
    commits = _commits(session, request.revisions)
    path = request.path or _only(session, commits[-1])
    versions: list[tuple[str, str, Manifest]] = []
    for commit in commits:
        found = session.at(commit)
        oid, manifest = found.oid(path), found.manifest(path)
        if oid is None or manifest is None:
            raise NotFoundError(f"{path} is no checkpoint in {commit[:12]}", hint="narrow the range")
        if not versions or versions[-1][1] != oid:
            versions.append((commit, oid, manifest))
    versions = versions[-request.last :] if request.last else versions
    if len(versions) < 2:
        raise UsageError(f"{path} has {len(versions)} version there; a mean takes two or more")
    factors = averages.coefficients(request.shape, len(versions))
    averaging = Averaging(session.objects, [manifest for _, _, manifest in versions], factors)
    oids = [oid for _, oid, _ in versions]
    return VersionPlan(path, [commit for commit, _, _ in versions], factors, averaging, oids)


def _commits(session: Session, revisions: Sequence[str]) -> list[str]:
    """Return the commits of ranges and revisions; those of a range with the oldest first."""
    found: list[str] = []
    for revision in revisions:
        if ".." in revision:
            words = ("rev-list", "--reverse", "--topo-order", "--first-parent", "--end-of-options", revision)
            found += session.repo.git().run(*words, "--").text.split()
        elif (commit := session.repo.commit_of(revision)) is not None:
            found.append(commit)
        else:
            raise NotFoundError(f"no such commit: {revision}")
    if not found:
        raise UsageError("there is no commit in the range", hint="theta average v1..main -o mean.safetensors")
    return found


def _only(session: Session, commit: str) -> str:
    paths = sorted(session.at(commit).manifests)
    if len(paths) != 1:
        some = ", ".join(paths[:3]) if paths else "none"
        raise UsageError(f"which checkpoint? {commit[:12]} has {some}", hint="--path PATH names it")
    return paths[0]


def write(
    session: Session, found: VersionPlan, out: Path, *, force: bool, progress: Progress | None = None
) -> None:
    """Write the mean to a file, which has the suffix and the layout of the last version; stores nothing."""
    like = found.averaging.like
    if out.suffix != Path(found.path).suffix:
        raise UsageError(
            f"{out.name} needs the suffix of {found.path}", hint="'theta convert' changes formats"
        )
    converting.check_places([out], 0, force)
    restorer = Restorer(session.objects, like)
    _room.require(out.parent, restorer.size)
    workers = _workers(session, found)
    begun = _fs.AtomicFile(out, nameless=True) if workers is None else exchange.begun(session, out)
    with session.engaged(), begun as file:
        coming = ComingFile(file, like.skeleton, restorer.plan)
        found.averaging.write(coming, progress, workers)
        if workers is not None:
            restoring = restore_parts.RestoreWorkers(workers.engine, workers.objects)
            restoring.fill(coming, like, found.manifests[-1], {}, None)
        restorer.write(coming)


def commit(
    session: Session,
    request: AverageRequest,
    found: VersionPlan,
    message: str = "",
    progress: Progress | None = None,
) -> str:
    """Commit the mean on top of HEAD; return the commit, whose trailer names the versions and the shape.

    Raises :class:`RefusedError` if files have changes that are not committed.
    """
    renewing.refuse_unclean(session)
    head = session.repo.resolve("HEAD")
    with session.change() as change:
        before = session.at(head).manifests.get(found.path)
        store = before.store if before is not None else found.averaging.like.store
        manifest = found.averaging.store(change.pack, store, progress, _workers(session, found))
        stored = StoredFile(change.pack.blob(manifest.data, text=True))
        change.store()
        files: dict[str, File] = {found.path: stored}
        subject = message or f"Average {len(found.commits)} versions of {visible(found.path)}"
        return told_commit.write(session, change, head, files, subject, trailer(request, found), "average")


def _workers(session: Session, found: VersionPlan) -> AverageWorkers | None:
    """Return the workers of the session's engine, if it has one."""
    engine = session.engine(found.averaging.like.nbytes)
    if engine is None:
        return None
    return average_parts.AverageWorkers(engine, session.objects, found.manifests, found.factors)


def trailer(request: AverageRequest, found: VersionPlan) -> str:
    """Return the line from which :func:`again` computes the same mean."""
    words = ["--shape", request.shape, "--path", found.path, *found.commits]
    return f"{TRAILER}: {recipe_line.join(words)}"


def recorded(session: Session, oid: str) -> AverageRequest | None:
    """Return the request in the trailer of commit ``oid``; None when it is no mean.

    Raises :class:`UsageError` if the trailer is malformed.  Nobody has checked the names of its versions.
    """
    return told_commit.recorded(session, oid, TRAILER, _parsed)


def _parsed(line: str) -> AverageRequest:
    first, shape, second, path, *commits = recipe_line.split(line)
    if (first, second) != ("--shape", "--path") or not path or not commits:
        raise ValueError(line)
    return AverageRequest(commits, path, shape)


def again(session: Session, oid: str, progress: Progress | None = None) -> bool | None:
    """Compute the mean of commit ``oid`` again and compare all tensors; None when it is no mean."""
    request = recorded(session, oid)
    if request is None:
        return None
    found = plan(session, request)
    committed = session.at(oid).manifest(request.path)
    with dry_run.rehearsal(session) as apart, apart.objects.writing() as pack:
        made = found.averaging.store(pack, found.averaging.like.store, progress)
    same = committed is not None and made.same_value(committed)
    return same and changes_only(session, oid, (request.path,))


def changes_only(session: Session, oid: str, paths: Collection[str]) -> bool:
    """Return whether commit ``oid`` has all other files as its first parent has them."""
    parent = next(iter(session.repo.commit(oid).parents), None)
    before = session.repo.tree_of(parent) if parent is not None else None
    return {path for path, _ in differing(before, session.repo.tree_of(oid), STORES)} <= {*paths}
