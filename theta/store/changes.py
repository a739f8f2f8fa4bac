"""The differences between two versions of a checkpoint, tensor by tensor, by digest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from theta.dtypes import DTYPES
from theta.lazy import Module
from theta.units import as_counted

if TYPE_CHECKING:
    from theta.store.files import file_scan
    from theta.store.files.file_scan import Scan
    from theta.store.format.manifest import Manifest
else:
    file_scan = Module("theta.store.files.file_scan")


@dataclass(frozen=True)
class ValueDigest:
    """A tensor as far as a comparison by digest goes."""

    dtype: str
    shape: tuple[int, ...]
    digest: str

    @property
    def nbytes(self) -> int:
        """The size in bytes."""
        return DTYPES[self.dtype].nbytes(self.shape)


@dataclass(frozen=True)
class Version:
    """One version of a checkpoint: its container, its skeleton's identity, its tensors."""

    format: str
    skeleton: str
    values: Mapping[str, ValueDigest]


@dataclass(frozen=True)
class Change:
    """One tensor that differs.

    ``status``: A added, D deleted, M values, S shape, T dtype, R renamed (equal digest).
    """

    status: str
    name: str
    old: ValueDigest | None
    new: ValueDigest | None
    old_name: str = ""


@dataclass(frozen=True)
class Changes:
    """All that differs between two versions; ``created`` and ``removed``: one of them has no such file."""

    tensors: tuple[Change, ...]
    container: bool
    unchanged: int
    created: bool = False
    removed: bool = False
    fault: str = field(default="", kw_only=True)
    """The reason why a version cannot be read, or ""."""
    old_path: str = field(default="", kw_only=True)
    """The path that the file had before, if it was renamed."""
    plain: bool = field(default=False, kw_only=True)
    """The file is there in the new version, but as plain bytes, in git or as a value of theta's."""

    def __bool__(self) -> bool:
        told = self.fault or self.old_path or self.plain
        return bool(self.tensors) or self.container or self.created or self.removed or bool(told)

    def count(self, status: str) -> int:
        """Return the number of tensors that have ``status`` (a string of letters)."""
        return sum(change.status in status for change in self.tensors)

    def told(self, path: str) -> str:
        """Return one line for people that begins with ``path``, or with both paths of a renamed file."""
        if not self.old_path:
            return f"{path}: {self.summary()}"
        changed = f": {self.summary()}" if self.tensors or self.container or self.fault else ""
        return f"renamed {self.old_path} -> {path}{changed}"

    def row(self, path: str) -> str:
        """Return the row of ``git diff --stat`` for ``path``, by tensors."""
        renamed = f"{self.old_path} -> " if self.old_path else ""
        return f" {renamed}{path} | {self.summary()}"

    def summary(self) -> str:
        """Return one line with the changes and the number of files."""
        if self.fault:
            return self.fault
        if self.plain:
            return "stored as plain bytes now, not as a checkpoint"
        if self.created or self.removed:
            return f"{'new' if self.created else 'deleted'}, {counted(len(self.tensors), 'tensor')}"
        words = (("MST", "changed"), ("A", "added"), ("D", "deleted"), ("R", "renamed"))
        parts = [f"{n} {word}" for letters, word in words if (n := self.count(letters))]
        if parts:
            return f"{', '.join(parts)} of {counted(self.unchanged + len(self.tensors), 'tensor')}"
        return "same weights, different container" if self.container else "unchanged"


def counted(number: int, word: str) -> str:
    """Return ``1 tensor``, ``2 tensors``, ``no tensors``."""
    return f"{number or 'no'} {word}" + ("" if number == 1 else "s")


def of_manifest(manifest: Manifest) -> Version:
    """Return the version that ``manifest`` stands for."""
    values = {line.name: ValueDigest(line.dtype, line.shape, line.digest) for line in manifest.lines}
    return Version(manifest.format, manifest.skeleton, values)


def of_scan(scan: Scan, skeleton: str) -> Version:
    """Return the version in a scanned file; ``skeleton`` identifies its container."""
    digests = scan.digests()
    values = {t.name: ValueDigest(t.dtype, t.shape, digests[t.name]) for t in scan.layout.tensors}
    return Version(scan.layout.format, skeleton, values)


def compare(old: Version | None, new: Version | None) -> Changes:
    """Return the changes from ``old`` to ``new``; None stands for a file that is not there."""
    before = old.values if old else {}
    after = new.values if new else {}
    gone = {name: value for name, value in before.items() if name not in after}
    found: list[Change] = []
    same = 0
    for name, value in after.items():
        if name not in before:
            found.append(_appeared(name, value, gone))
        elif before[name].digest == value.digest:
            same += 1
        else:
            found.append(Change(_kind(before[name], value), name, before[name], value))
    found += [Change("D", name, value, None) for name, value in gone.items()]
    container = plain = False
    if old is not None and new is not None:
        container = (old.format, old.skeleton) != (new.format, new.skeleton)
        plain = old.format != new.format and file_scan.loses_tensors(old.format, new.format)
    ordered = tuple(sorted(found, key=lambda change: as_counted(change.name)))
    return Changes(ordered, container, same, created=old is None, removed=new is None, plain=plain)


def _appeared(name: str, value: ValueDigest, gone: dict[str, ValueDigest]) -> Change:
    twin = next((old for old, was in gone.items() if was.digest == value.digest), None)
    if twin is None:
        return Change("A", name, None, value)
    return Change("R", name, gone.pop(twin), value, twin)


def _kind(old: ValueDigest, new: ValueDigest) -> str:
    if old.dtype != new.dtype:
        return "T"
    return "S" if old.shape != new.shape else "M"
