"""How far the updates agree that two sides of a merge made to a tensor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from theta._numpy import np
from theta.dtypes import DTYPES, numpy_dtype
from theta.porcelain.workspace.session import Session
from theta.store.format.manifest import Line
from theta.store.read.stored_tensor import StoredTensor


def comparable(base: Line, *sides: Line) -> bool:
    """Return whether the values of these lines can be subtracted element by element."""
    if any((side.dtype, side.shape) != (base.dtype, base.shape) for side in sides):
        return False
    return DTYPES[base.dtype].kind in ("float", "int", "uint") and bool(base.nbytes)


def agreement(session: Session, base: Line, ours: Line, theirs: Line) -> dict[str, float]:
    """Return the metrics of comparable values, each read once: ``opposed``, ``apart``, ``ours``, ``theirs``.

    One that is infinite or no number says so: an update of a base of zeros, or a value that is none.
    """
    total = _Updates()
    sides = (_pieces(session, side) for side in (base, ours, theirs))
    with np.errstate(invalid="ignore", over="ignore"):
        for pieces in zip(*sides, strict=True):
            total.add(*pieces)
    return total.result()


def _pieces(session: Session, line: Line) -> Iterator[Any]:
    dtype = numpy_dtype(line.dtype)
    for chunk in StoredTensor(session.objects, line).chunks():
        yield np.frombuffer(bytes(chunk), dtype).astype(np.float64)


class _Updates:
    """Running sums over what two sides did to one tensor."""

    def __init__(self) -> None:
        self._base = self._ours = self._theirs = self._dot = 0.0
        self._either = self._opposed = 0

    def add(self, base: Any, ours: Any, theirs: Any) -> None:
        """Add equally long pieces, float64."""
        one, other = _update(base, ours), _update(base, theirs)
        self._base += float(base @ base)
        self._ours += float(one @ one)
        self._theirs += float(other @ other)
        self._dot += float(one @ other)
        self._either += int(np.count_nonzero((one != 0) | (other != 0)))
        self._opposed += int(np.count_nonzero(np.sign(one) * np.sign(other) < 0))

    def result(self) -> dict[str, float]:
        """Return the metrics."""
        found: dict[str, float] = {}
        if self._ours and self._theirs:
            norm = (self._ours * self._theirs) ** 0.5
            found["opposed"] = self._opposed / self._either
            found["apart"] = 1.0 - self._dot / norm if norm else 0.0
        return found | {"ours": self._share(self._ours), "theirs": self._share(self._theirs)}

    def _share(self, squares: float) -> float:
        """Return the norm of an update over that of the base."""
        if not squares:
            return 0.0
        return (squares / self._base) ** 0.5 if self._base else float("inf")


def _update(base: Any, side: Any) -> Any:
    """Return the difference of values; 0 where both have the same one, infinities and no numbers too."""
    same = (base == side) | (np.isnan(base) & np.isnan(side))
    return np.where(same, 0.0, side - base)
