"""The stored tensors that a new one may be a version of, found by name, else by a sketch of values.

A tensor that has a new name (renamed, or of a new checkpoint) may be near one of the same shape in
any checkpoint of the parents.  A few words of one chunk of each are compared; what is read for that is
kept, so each stored tensor is read once.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from theta._numpy import np
from theta.codecs.base import Each, TensorWords, word_dtype
from theta.dtypes import DTYPES
from theta.errors import CorruptError, MissingObjectsError
from theta.store.format.manifest import Line, Manifest
from theta.store.format.tensor_tree import chunk_lengths
from theta.store.odb.objects import Objects
from theta.store.read.stored_tensor import StoredTensor
from theta.store.write.layer_plan import Changed, Hints, Planned, plan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Words = NDArray[Any]

_SAMPLES: Final = 512
_MOST_LOOKED_AT: Final = 64
_MOST_TAKEN: Final = 2
_NEAR: Final = 0.5
"""The share of the bits of a word that differences to a near tensor have at most, on average.

Unrelated weights differ in about 0.85 of them, steps of training in 0 to 0.3.
"""


class Nearby:
    """Finds bases among the tensors of ``manifests``; those with ``store`` are of the same checkpoint.

    Threads may share it; what it returns does not depend on their order.
    """

    def __init__(self, objects: Objects, manifests: Sequence[Manifest], store: str) -> None:
        self._objects = objects
        self._own = [manifest for manifest in manifests if manifest.store == store]
        self._others = [manifest for manifest in manifests if manifest.store != store]
        self._alike: dict[tuple[str, tuple[int, ...]], dict[str, Line]] = {}
        for manifest in [*self._own, *self._others]:
            for line in manifest.lines:
                self._alike.setdefault((line.dtype, tuple(line.shape)), {}).setdefault(line.tree, line)
        self._sketches: dict[str, Words | None] = {}
        self._lock = threading.Lock()

    def may_have(self, name: str, dtype: str, shape: Sequence[int]) -> bool:
        """Return whether any tensor could be a base at all, without reading one."""
        named = any(name in manifest.by_name for manifest in [*self._own, *self._others])
        return named or (dtype, tuple(shape)) in self._alike

    def plan(self, changed: Changed, each: Each = map) -> Planned | None:
        """Plan how to store ``changed`` on tensors that it may be a version of; None when there are none.

        ``each`` runs the encoding of chunks.
        """
        own, hints = self.own(changed.name), Hints(each=each)
        planned = plan(self._objects, changed, own, hints) if own else None
        if planned is None or planned.stands_alone:
            others = self.others(changed.name, changed.tensor)
            return plan(self._objects, changed, [*own, *others], hints) if others else planned
        return planned

    def own(self, name: str) -> list[Line]:
        """Return the parents' versions of tensor ``name``."""
        return _named(self._own, name)

    def others(self, name: str, new: TensorWords) -> list[Line]:
        """Return tensors of other names or checkpoints that ``new`` is near, the nearest first.

        And one that has the name but another dtype, since a cast cannot be seen in a sketch.
        """
        sketch, own = _sketch(new), {line.tree for line in self.own(name)}
        alike = list(self._alike.get((new.dtype, tuple(new.shape)), {}).values())
        # Of the same name first, then in the order of the manifests.
        alike.sort(key=lambda line: line.name != name)
        looked_at = [line for line in alike if line.tree not in own][:_MOST_LOOKED_AT]
        found = [(self._distance(sketch, new.dtype, line), k) for k, line in enumerate(looked_at)]
        near = [looked_at[k] for distance, k in sorted(found) if distance <= _NEAR]
        namesakes = [line for line in _named(self._others, name) if line.dtype != new.dtype]
        return near[:_MOST_TAKEN] or namesakes[:1]

    def _distance(self, sketch: Words, dtype: str, line: Line) -> float:
        """Return the mean number of bits of differences, over those of a word."""
        with self._lock:
            known = line.tree in self._sketches
        if not known:
            read = self._read(line)
            with self._lock:
                self._sketches[line.tree] = read
        other = self._sketches[line.tree]
        return 1.0 if other is None else _bits(sketch, other, dtype) / (8 * sketch.itemsize)

    def _read(self, line: Line) -> Words | None:
        try:
            if not self._objects.has_files(line.tree):  # a guess is not worth a request
                return None
            stored = StoredTensor(self._objects, line)
            record = stored.record
            if not record.chunks or not all(map(self._objects.has, record.files.values())):
                return None
            return _picked(stored.sample(*_middle([chunk.length for chunk in record.chunks], line.dtype)))
        except (MissingObjectsError, CorruptError):
            return None


def _named(manifests: Sequence[Manifest], name: str) -> list[Line]:
    found = (manifest.by_name.get(name) for manifest in manifests)
    return list(dict.fromkeys(line for line in found if line is not None and line.nbytes))


def _middle(lengths: Sequence[int], dtype: str) -> tuple[int, int]:
    """Return the words of the chunk in the middle."""
    size, number = word_dtype(dtype).itemsize, len(lengths) // 2
    start = sum(lengths[:number]) // size
    return start, start + lengths[number] // size


def _picked(words: Words) -> Words:
    """Return words at equal distances."""
    return words[np.linspace(0, words.size - 1, min(_SAMPLES, words.size)).astype(np.int64)].copy()


def _sketch(new: TensorWords) -> Words:
    return _picked(new.read(*_middle(chunk_lengths(new.dtype, new.shape), new.dtype)))


def _bits(one: Words, other: Words, dtype: str) -> float:
    """Return the mean length in bits of the differences of words, in the order of their values."""
    apart = np.abs(_ordered(one, dtype) - _ordered(other, dtype))
    return float(np.log2(1 + apart).mean())


def _ordered(words: Words, dtype: str) -> NDArray[np.float64]:
    """Return words as numbers in the order of the values: of floats, negative ones count down from zero."""
    width = words.itemsize
    if DTYPES[dtype].kind in ("float", "complex"):
        top = words.dtype.type(1 << (8 * width - 1))
        magnitude = (words & ~top).astype(np.float64)
        signed: NDArray[np.float64] = np.where(words & top, -magnitude, magnitude)
        return signed
    letter = "i" if DTYPES[dtype].kind == "int" else "u"
    return words.view(f"<{letter}{width}").astype(np.float64)
