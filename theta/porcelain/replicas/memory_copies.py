"""Bringing checkpoints that are in memory to a version: arrays, or the bytes of a whole file."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from theta.errors import NotFoundError, UsageError, concerning
from theta.lazy import Module
from theta.porcelain.replicas import applying
from theta.porcelain.replicas.applying import Action, AppliedFile, ApplyResult
from theta.porcelain.stage import run_steps
from theta.porcelain.workspace.session import Session

if TYPE_CHECKING:
    from theta.store.format import skeleton as skeletons
    from theta.store.format.manifest import Manifest
    from theta.store.format.skeleton import Skeleton
    from theta.store.read import reassembly, revising
    from theta.store.read.revising import Had, Reviser
else:
    reassembly = Module("theta.store.read.reassembly")
    revising = Module("theta.store.read.revising")
    skeletons = Module("theta.store.format.skeleton")


@dataclass(frozen=True)
class ArrayBytes:
    """An array of a program: its dtype and shape as manifests spell them, and its bytes, to be written."""

    dtype: str
    shape: tuple[int, ...]
    view: memoryview


class FileBytes:
    """The bytes of a whole file in memory, such as a shared-memory map; there may be more behind them."""

    def __init__(self, view: memoryview, size: int) -> None:
        if len(view) < size:
            raise UsageError(f"it has {len(view)} bytes, and the file needs {size}")
        self._view, self.size = view, size

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset``."""
        return bytes(self.view(offset, length))

    def view(self, offset: int, length: int) -> memoryview:
        """Return ``length`` bytes from ``offset`` where they are."""
        return self._view[offset : offset + length].toreadonly()

    def patch(self, offset: int, data: bytes | memoryview) -> None:
        """Write ``data`` at ``offset``."""
        self._view[offset : offset + len(data)] = data


class FileOfArrays:
    """Arrays at the places that their bytes have in the file of a checkpoint."""

    def __init__(self, arrays: Mapping[str, ArrayBytes], manifest: Manifest, plan: Skeleton) -> None:
        _check(arrays, manifest)
        self.size = plan.size
        placed = sorted((offset, name) for name, offset, length in plan.extents() if length)
        self._starts = [offset for offset, _ in placed]
        self._views = [arrays[name].view for _, name in placed]

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset``, which are in one array."""
        return bytes(self.view(offset, length))

    def view(self, offset: int, length: int) -> memoryview:
        """Return ``length`` bytes from ``offset`` where they are, in one array."""
        view, start = self._at(offset)
        return view[start : start + length].toreadonly()

    def patch(self, offset: int, data: bytes | memoryview) -> None:
        """Write ``data`` at ``offset``, in one array."""
        view, start = self._at(offset)
        view[start : start + len(data)] = data

    def _at(self, offset: int) -> tuple[memoryview, int]:
        number = bisect_right(self._starts, offset) - 1
        return self._views[number], offset - self._starts[number]


def _check(arrays: Mapping[str, ArrayBytes], manifest: Manifest) -> None:
    """Raise :class:`UsageError` unless each tensor has an array of its dtype and shape."""
    for line in manifest.lines:
        array = arrays.get(line.name)
        if array is None:
            raise UsageError(f"there is no array for the tensor {line.name}")
        if (array.dtype, array.shape) != (line.dtype, line.shape):
            has = f"{array.dtype} {list(array.shape)}"
            raise UsageError(f"{line.name} is {line.dtype} {list(line.shape)}, and its array is {has}")


MemoryTarget = Mapping[str, ArrayBytes] | memoryview


@dataclass
class _Target:
    """A checkpoint in memory, and its new version."""

    path: str
    manifest: Manifest
    copy: FileBytes | FileOfArrays
    reviser: Reviser


def apply(
    session: Session, revision: str, targets: Mapping[str, MemoryTarget], since: str | None = None
) -> ApplyResult:
    """Bring checkpoints in memory to ``revision``; each chunk is proven before it is written.

    Args:
        session: the repository.
        revision: any name of a commit, or ``RUN`` or ``RUN@STEP``.
        targets: path -> arrays by the names of tensors, or the bytes of the file.
        since: the revision that the memory surely holds, whose common part is not looked at; by default
            all is hashed first.

    Raises:
        NotFoundError: there is no such revision, or it has no such checkpoint.
        UsageError: an array is missing, or has another dtype or shape; nothing was written.
    """
    commit = run_steps.named(session, revision)
    before = {} if since is None else _manifests(session, run_steps.named(session, since), targets)
    manifests = _manifests(session, commit, targets)
    if missing := sorted(targets.keys() - manifests.keys()):
        raise NotFoundError(f"{commit[:12]} has no checkpoint {missing[0]}")
    session.objects.expect({manifest.skeleton: 0 for manifest in manifests.values()})
    found = [_target(session, path, manifests[path], targets[path], before.get(path)) for path in targets]
    trees: dict[str, int] = {}
    for target in found:
        trees |= target.reviser.trees()
    session.objects.obtain(trees)
    return ApplyResult(commit, {target.path: _applied(target) for target in found})


def _manifests(session: Session, commit: str, targets: Iterable[str]) -> dict[str, Manifest]:
    files = applying.files_of(session, commit, ())
    return {one.path: one.manifest for one in files if one.path in targets and one.manifest is not None}


def _target(
    session: Session, path: str, manifest: Manifest, memory: MemoryTarget, before: Manifest | None
) -> _Target:
    objects = session.objects
    with concerning(path):
        plan = reassembly.Restorer(objects, manifest).plan
        copy = (
            FileBytes(memory, plan.size)
            if isinstance(memory, memoryview)
            else FileOfArrays(memory, manifest, plan)
        )
        had = _had(session, before, manifest, plan, copy)
        reviser = revising.Reviser(objects, manifest, had, copy, in_place=True, plan=plan)
        return _Target(path, manifest, copy, reviser)


def _had(
    session: Session,
    before: Manifest | None,
    manifest: Manifest,
    plan: Skeleton,
    copy: FileBytes | FileOfArrays,
) -> Sequence[Had]:
    """Return what the memory holds: as ``before`` says, or as hashing tells."""
    if before is None:
        return revising.hashed(manifest, plan, copy)
    is_alike = before.skeleton == manifest.skeleton
    old = revising.had_of(plan if is_alike else skeletons.read(session.objects, before.skeleton), before)
    if isinstance(copy, FileBytes):
        return old
    return [*_moved(old, plan)]


def _moved(old: Iterable[Had], plan: Skeleton) -> Iterator[Had]:
    """Yield the tensors of arrays at their places in the new file: arrays have names, and no places."""
    places = {name: offset for name, offset, _ in plan.extents()}
    for one in old:
        if one.name in places:
            yield revising.Had(one.name, places[one.name], one.digest, one.line)


def _applied(target: _Target) -> AppliedFile:
    with concerning(target.path):
        revision, plan = target.reviser.revision(), target.reviser.plan
        is_file = isinstance(target.copy, FileBytes)
        for offset, data in plan.literals() if is_file else ():
            target.copy.patch(offset, data)
        revising.write(target.copy, revision)
        if is_file:
            revising.write_fields(target.copy, plan)
    action = Action.PATCHED if revision.pieces else Action.KEPT
    return AppliedFile(target.path, action, revision.names, revision.nbytes)
