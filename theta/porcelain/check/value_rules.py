"""Rules on values: each tensor is read once, chunk by chunk, beside the version before where that matters."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from theta._numpy import np
from theta.dtypes import DTYPES, numpy_dtype
from theta.formats.values import Value, side_by_side
from theta.porcelain.check.findings import BrokenRule
from theta.porcelain.check.zero_rows import ZeroRows, emptied

_EXPONENTS: Final = {
    "f16": 0x7C00,
    "bf16": 0x7F80,
    "f32": 0x7F800000,
    "f64": 0x7FF0000000000000,
}
"""Bits of the exponent, which are all set in infinities and in what is no number."""
_BEGINS: Final = re.compile(r"lora_(?:B|up|embedding_B)\b")
"""Factors that are zero before the first step of training."""
_FEW: Final = 1024
_MATRIX: Final = 2


class ValueTally:
    """Counts over the chunks of a tensor of ``dtype``, which numpy has."""

    def __init__(self, dtype: str) -> None:
        self._name, self._dtype = dtype, numpy_dtype(dtype)
        self._first: Any = None
        self.nan = self.inf = 0
        self.same = self.zero = True

    def add(self, chunk: bytes) -> Any:
        """Count a chunk; return it as an array."""
        array = np.frombuffer(chunk, self._dtype)
        if not array.size:
            return array
        if self._first is None:
            self._first = array[:1].copy()
        self.same = self.same and _is_only(chunk, self._first.tobytes(), self._dtype.itemsize)
        self.zero = self.zero and not self._has_more_than_zero(array)
        if self._may_be_odd(array):
            self.nan += int(np.count_nonzero(np.isnan(array)))
            self.inf += int(np.count_nonzero(np.isinf(array)))
        return array

    def _has_more_than_zero(self, array: Any) -> bool:
        """Return whether an element is neither 0 nor -0."""
        if self._name in _EXPONENTS:
            words = array.view(f"<u{self._dtype.itemsize}")
            return bool(words[:_FEW].max() << 1) or bool((words << words.dtype.type(1)).any())
        return bool(array.any())

    def _may_be_odd(self, array: Any) -> bool:
        """Return whether an element may be infinite or no number."""
        if (mask := _EXPONENTS.get(self._name)) is not None:
            words = array.view(f"<u{self._dtype.itemsize}")
            return bool(((words & words.dtype.type(mask)) == mask).any())
        return DTYPES[self._name].kind not in ("int", "uint", "bool")


def _is_only(chunk: bytes, element: bytes, itemsize: int) -> bool:
    """Return whether all elements of ``chunk`` have the bytes of ``element``."""
    head = chunk[: _FEW * itemsize]
    return head == element * (len(head) // itemsize) and chunk == element * (len(chunk) // itemsize)


class _Gap:
    """The norms of a value and of its difference from the value before."""

    def __init__(self) -> None:
        self.moved = self._before = self._gap = 0.0

    def add(self, new: Any, old: bytes) -> None:
        """Add a chunk and the same chunk of the value before."""
        if new.tobytes() == old:
            before = np.frombuffer(old, new.dtype).astype(np.complex128)
            self._before += float(np.vdot(before, before).real)
            return
        before = np.frombuffer(old, new.dtype).astype(np.complex128)
        gap = new.astype(np.complex128) - before
        self.moved += 1
        self._before += float(np.vdot(before, before).real)
        self._gap += float(np.vdot(gap, gap).real)

    @property
    def relative(self) -> float:
        """The norm of the difference over that of the value before."""
        if not self.moved:
            return 0.0
        return float((self._gap / self._before) ** 0.5) if self._before else float("inf")


@dataclass(frozen=True)
class Former:
    """A tensor in the version before, None when that has none, and how far it may be from there."""

    value: Value | None
    budget: float | None


@dataclass(frozen=True)
class Demand:
    """How far a tensor may change, None for as far as it likes, and whether it is hashed."""

    budget: float | None
    is_hashed: bool = False


@dataclass(frozen=True)
class CheckedValue:
    """The findings of one tensor, and the digest of its form and bytes if it was asked for."""

    findings: tuple[BrokenRule, ...]
    digest: bytes = b""


def checked(path: str, name: str, new: Value, old: Value | None, demand: Demand) -> CheckedValue:
    """Read a tensor once; ``old`` is that of the version before."""
    former = Former(old, demand.budget)
    if not demand.is_hashed:
        return CheckedValue(tuple(_check(path, name, new, former, None)))
    digest = hashlib.sha256(f"{new.dtype} {new.shape}".encode())
    found = tuple(_check(path, name, new, former, digest))
    return CheckedValue(found, digest.digest())


def _check(path: str, name: str, new: Value, former: Former, digest: Any) -> Iterator[BrokenRule]:
    """Yield what is wrong with the values of one tensor; ``digest`` is updated with its bytes, if given."""
    if DTYPES[new.dtype].kind in ("packed", "bytes") or not new.nbytes:
        yield from _packed(path, name, new, former)
        return
    old, budget = former.value, former.budget
    alike = old is not None and (old.dtype, old.shape) == (new.dtype, new.shape)
    pairs: Iterable[tuple[bytes, bytes | None]] = ((chunk, None) for chunk in new.chunks())
    if old is not None and alike and budget is not None:
        pairs = side_by_side(new.chunks(), old.chunks())
    tally, gap = ValueTally(new.dtype), _Gap()
    zeros = ZeroRows(new) if old is not None and alike and _has_weights(name, new) else None
    for chunk, before in pairs:
        array = tally.add(chunk)
        if zeros is not None:
            zeros.add(chunk)
        if digest is not None:
            digest.update(chunk)
        if before is not None:
            gap.add(array, before)
    yield from _of_tally(path, name, new, tally)
    if old is not None and zeros is not None and zeros.rows and not tally.zero:
        yield from emptied(path, name, zeros.rows, old)
    if old is None or budget is None:
        return
    if alike:
        yield from _of_budget(path, name, gap.relative, budget, bool(gap.moved))
    else:
        yield BrokenRule("change" if budget else "frozen", path, name, "its shape or its dtype changed")


def _of_tally(path: str, name: str, value: Value, tally: ValueTally) -> Iterator[BrokenRule]:
    if tally.nan:
        yield BrokenRule("nan", path, name, f"{tally.nan} elements are no number")
    if tally.inf:
        yield BrokenRule("inf", path, name, f"{tally.inf} elements are infinite")
    if not _has_weights(name, value):
        return
    if tally.zero:
        yield BrokenRule("zero", path, name, "all elements are zero")
    elif tally.same:
        yield BrokenRule("constant", path, name, "all elements are the same")


def _has_weights(name: str, value: Value) -> bool:
    """Return whether a tensor is a matrix of floats that is not zero by custom."""
    is_matrix = len(value.shape) >= _MATRIX and min(value.shape) >= _MATRIX
    return is_matrix and DTYPES[value.dtype].kind == "float" and not _BEGINS.search(name)


def _of_budget(path: str, name: str, relative: float, budget: float, moved: bool) -> Iterator[BrokenRule]:
    if not budget and (moved or relative):
        yield BrokenRule(
            "frozen", path, name, f"it is to stay as it is, and changed by {relative:.3g} of its norm"
        )
    elif budget and not relative <= budget:
        yield BrokenRule(
            "change", path, name, f"it changed by {relative:.3g} of its norm; the budget is {budget:g}"
        )


def _packed(path: str, name: str, new: Value, former: Former) -> Iterator[BrokenRule]:
    """Yield a change of a frozen tensor whose elements numpy does not have."""
    old = former.value
    if old is None or former.budget != 0:
        return
    if (old.dtype, old.shape) != (new.dtype, new.shape) or any(
        one != other for one, other in side_by_side(new.chunks(), old.chunks())
    ):
        yield BrokenRule("frozen", path, name, "it is to stay as it is, and changed")
