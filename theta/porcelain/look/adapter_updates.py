"""The updates of an adapter of PEFT, module by module: the product of both factors and its scale.

Factors say little by themselves: ``B A`` is also ``(B M) (M^-1 A)``.  So norms are those of the products
``s B A``, and two versions are compared as products, from small matrices of the factors alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from theta._blas import one_thread
from theta._numpy import np
from theta.dtypes import DTYPES
from theta.merging.adapters import products, scales
from theta.merging.adapters.scales import Scales
from theta.merging.strategies import is_averaged
from theta.merging.strategies.factor_names import FACTOR
from theta.merging.strategies.numbers import widen
from theta.porcelain.look import diffing
from theta.porcelain.look.diffing import Compared, Sides
from theta.porcelain.merge.versions import beside, configuration
from theta.porcelain.workspace.session import Session
from theta.store.changes import ValueDigest
from theta.store.format.manifest import Line
from theta.store.read.stored_tensor import StoredTensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]

_MOST_RANK: Final = 4096


@dataclass(frozen=True)
class ModuleUpdate:
    """The update of one module, in two versions of an adapter.

    Attributes:
        module: its name in the adapter, without PEFT's prefix.
        old_rank: the number of singular values that are not zero, before; None for a new module.
        rank: the same of the new version; None when it is deleted.
        old_norm: the Frobenius norm of the product before.
        norm: the Frobenius norm of the product.
        relative: the norm of the difference of both over the norm before.
        cosine: the cosine similarity of both.
        of_base: the norm over that of the weight which it is added to; None when that is not known.
        scaled: scales are those of the configuration; otherwise norms are those of ``B A``.
    """

    module: str
    old_rank: int | None
    rank: int | None
    old_norm: float | None
    norm: float | None
    relative: float | None
    cosine: float | None
    of_base: float | None = None
    scaled: bool = True


@dataclass(frozen=True)
class _ScaledProduct:
    """``scale * b @ a``, the product of the factors of one module."""

    a: Matrix
    b: Matrix
    scale: float
    scaled: bool = True

    def dot(self, other: _ScaledProduct) -> float:
        """Return the sum of the products of all elements of both."""
        both = (self.b.T @ other.b) * (self.a @ other.a.T)
        return float(both.sum()) * self.scale * other.scale

    def singular_values(self) -> Matrix:
        """Return the singular values, from triangles of the factors."""
        left, right = np.linalg.qr(self.b)[1], np.linalg.qr(self.a.T)[1]
        core: Matrix = np.ascontiguousarray(left @ right.T) * self.scale
        values: Matrix = np.linalg.svd(core, compute_uv=False).astype(np.float64)
        return values

    @property
    def norm(self) -> float:
        """The Frobenius norm."""
        return abs(self.scale) * products.norm(self.a, self.b)

    @property
    def rank(self) -> int:
        """The number of singular values that are more than rounding."""
        values = self.singular_values()
        least = float(values[0]) * max(self.a.shape[1], self.b.shape[0]) * 2.0**-52 if values.size else 0.0
        return int(np.count_nonzero(values > least))


ReadTensor = Callable[[str], "tuple[ValueDigest | Line, bytes] | None"]
"""Returns dtype, shape and bytes of a tensor, or None."""


@dataclass(frozen=True)
class _AdapterVersion:
    """One version of an adapter."""

    read: ReadTensor
    scales: Scales | None

    def product(self, names: tuple[str, str], module: str) -> _ScaledProduct | None:
        """Return the product of two factors; None when they have none."""
        found = [self._matrix(name) for name in names]
        a, b = found
        if a is None or b is None or a.shape[0] != b.shape[1] or not 0 < a.shape[0] <= _MOST_RANK:
            return None
        try:
            scale = self.scales.scale(module, a.shape[0]) if self.scales is not None else None
        except ValueError:  # the configuration is of other factors
            scale = None
        known = scale is not None
        return (
            _ScaledProduct(a, b, 1.0 if scale is None else scale, known)
            if np.isfinite(a).all() and np.isfinite(b).all()
            else None
        )

    def _matrix(self, name: str) -> Matrix | None:
        found = self.read(name)
        if found is None:
            return None
        line, data = found
        if not _is_real(line.dtype) or len(line.shape) < 2 or not data:
            return None
        return _values(data, line.dtype).reshape(line.shape[0], -1)


def changed(session: Session, sides: Sides, item: Compared, *, of_base: bool = False) -> list[ModuleUpdate]:
    """Return the modules of an adapter of which a factor changed; [] for other checkpoints.

    With ``of_base`` the weights that they are added to are read, where a checkpoint of that side has them.
    """
    modules = _modules(change.name for change in item.changes.tensors)
    if not modules:
        return []
    old = _AdapterVersion(_of_manifests(session, item.old), _scales(session, sides.old, item.path))
    new = _AdapterVersion(_of_new(session, item), _scales(session, sides.new, item.path))
    found = (
        _compared(name, old.product(both, name), new.product(both, name)) for name, both in modules.items()
    )
    base = _Weights(session, sides.new or "", item.path) if of_base else None
    return [one if base is None else _beside(one, base.norm(one.module)) for one in found if one is not None]


def _beside(one: ModuleUpdate, weight: float | None) -> ModuleUpdate:
    return replace(one, of_base=one.norm / weight if one.norm is not None and weight else None)


def stored(session: Session, revision: str, path: str, lines: Mapping[str, Line]) -> list[ModuleUpdate]:
    """Return all modules of the adapter at ``path`` of ``revision``; [] for other checkpoints."""
    modules = _modules(lines)
    if not modules:
        return []
    one = _AdapterVersion(_of_lines(session, lines), _scales(session, revision, path))
    found = (_compared(name, None, one.product(both, name)) for name, both in modules.items())
    return [item for item in found if item is not None]


def _modules(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return module -> names of both factors, for the factors among ``names``."""
    found = {}
    for name in names:
        match, module = FACTOR.fullmatch(name), diffing.module_of(name)
        if match is not None and module is not None:
            a, b = (f"{match['module']}.lora{match['kind'] or ''}_{part}{match['end']}" for part in "AB")
            found[module] = a, b
    return dict(sorted(found.items()))


def _compared(module: str, old: _ScaledProduct | None, new: _ScaledProduct | None) -> ModuleUpdate | None:
    if old is None and new is None:
        return None
    with one_thread, np.errstate(all="ignore"):
        was_rank, rank = (None if one is None else one.rank for one in (old, new))
        was_norm, norm = (None if one is None else one.norm for one in (old, new))
        relative = cosine = None
        if old is not None and new is not None and old.a.shape[1] == new.a.shape[1]:
            relative, cosine = _apart(old, new) if old.b.shape[0] == new.b.shape[0] else (None, None)
    scaled = all(one.scaled for one in (old, new) if one is not None)
    return ModuleUpdate(module, was_rank, rank, was_norm, norm, relative, cosine, scaled=scaled)


def _apart(old: _ScaledProduct, new: _ScaledProduct) -> tuple[float | None, float | None]:
    """Return the norm of the difference over the norm before, and the cosine; None for a zero."""
    gap = _ScaledProduct(
        np.vstack([new.a * new.scale, old.a * -old.scale]), np.hstack([new.b, old.b]), 1.0
    ).singular_values()
    before, after = old.norm, new.norm
    relative = float(np.sqrt(np.square(gap).sum())) / before if before else None
    cosine = max(-1.0, min(1.0, old.dot(new) / before / after)) if before and after else None
    return relative, cosine


# -- reading -----------------------------------------------------------------------------


def _of_lines(session: Session, lines: Mapping[str, Line]) -> ReadTensor:
    def read(name: str) -> tuple[Line, bytes] | None:
        line = lines.get(name)
        return None if line is None else (line, StoredTensor(session.objects, line).whole().words.tobytes())

    return read


def _of_manifests(session: Session, oids: tuple[str, ...]) -> ReadTensor:
    return _of_lines(session, {line.name: line for oid in oids for line in session.manifest(oid).lines})


def _of_new(session: Session, item: Compared) -> ReadTensor:
    """Return what reads the new version: from its objects, or from the file in the worktree."""
    if not item.places:
        return _of_manifests(session, item.new)
    lines: dict[str, ValueDigest | Line] = {
        line.name: line for oid in item.old for line in session.manifest(oid).lines
    }
    lines |= {change.name: change.new for change in item.changes.tensors if change.new is not None}

    def read(name: str) -> tuple[ValueDigest | Line, bytes] | None:
        if name not in item.places or name not in lines:
            return None
        return lines[name], b"".join(diffing.new_bytes(session, item, name, lines[name].nbytes))

    return read


def _scales(session: Session, side: str | None, path: str) -> Scales | None:
    """Return the scales in the configuration beside an adapter of a revision, the index or the worktree."""
    place = beside(path)
    if side is None:
        file = session.repo.worktree / place
        is_small = file.is_file() and file.stat().st_size <= scales.MOST_CONFIG
        data = file.read_bytes() if is_small else None
    elif side:
        data = configuration(session, session.repo.commit_of(side), path)
    else:
        entry = next((one for one in session.repo.entries() if one.path == place), None)
        data = session.repo.read_blob(entry.oid) if entry is not None else None
    return scales.parsed(data) if data is not None else None


def _is_real(dtype: str) -> bool:
    return is_averaged(dtype) and dtype != "c64"


def _values(data: bytes | memoryview, dtype: str) -> Matrix:
    found: Matrix = widen(np.frombuffer(data, f"<u{DTYPES[dtype].itemsize}"), dtype).astype(np.float64)
    return found


class _Weights:
    """The weights that an adapter is for: those of the other checkpoints of its side, by their names."""

    def __init__(self, session: Session, side: str, adapter: str) -> None:
        self._session = session
        self._found: dict[str, dict[str, Line]] = {}
        for path, manifest in diffing.on_side(session, side).manifests.items():
            for line in manifest.lines if path != adapter else ():
                self._found.setdefault(line.name, {})[line.digest] = line

    def norm(self, module: str) -> float | None:
        """Return the norm of the weight of ``module``; None when there is none, or several."""
        lines = [*self._found.get(f"{module}.weight", {}).values()]
        if len(lines) != 1 or not _is_real(lines[0].dtype):
            return None
        return math.sqrt(sum(self._squares(lines[0])))

    def _squares(self, line: Line) -> Iterator[float]:
        for chunk in StoredTensor(self._session.objects, line).chunks():
            values = _values(chunk, line.dtype)
            yield float(values @ values)
