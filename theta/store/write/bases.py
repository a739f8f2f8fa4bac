"""The stored tensors that a new one may be a version of, found by name, else by a sketch of values.

A tensor that has a new name (renamed, or of a new checkpoint) may be near one of the same shape in
any checkpoint of the parents.  A few words of one chunk of each are compared; what is read for that is
kept, so each stored tensor is read once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from theta._numpy import np
from theta.codecs.base import Each, TensorWords, word_dtype, word_size
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
    Sketch = NDArray[np.float64]

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
        self._sketches: dict[str, Sketch | None] = {}
        self._lock = threading.Lock()

    def may_have(self, name: str, dtype: str, shape: Sequence[int]) -> bool:
        """Return whether any tensor could be a base at all, without reading one."""
        named = any(name in manifest.by_name for manifest in [*self._own, *self._others])
        return named or (dtype, tuple(shape)) in self._alike

    def plan(self, changed: Changed, each: Each = map, hidden: bool = True) -> Planned | None:
        """Plan how to store ``changed`` on tensors that it may be a version of; None when there are none.

        ``each`` runs the encoding of chunks.  If ``hidden``, factors are looked for that do not show at a
        glance.
        """
        own, hints = self.own(changed.name), Hints(each=each, hidden=hidden)
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
        alike = self._alike.get((new.dtype, tuple(new.shape)), {})
        foreign = (line for line in self._in_turn(name, alike) if line.tree not in own)
        looked_at = [*islice(foreign, _MOST_LOOKED_AT)]
        distances = _distances(sketch, list(map(self._sketch, looked_at)), 8 * word_size(new.dtype))
        found = sorted((distance, k) for k, distance in enumerate(distances) if distance <= _NEAR)
        near = [looked_at[k] for _, k in found]
        namesakes = [line for line in _named(self._others, name) if line.dtype != new.dtype]
        return near[:_MOST_TAKEN] or namesakes[:1]

    def _in_turn(self, name: str, alike: Mapping[str, Line]) -> Iterator[Line]:
        """Yield the lines of ``alike``: those called ``name`` first, all in the order of the manifests."""
        named = (manifest.by_name.get(name) for manifest in [*self._own, *self._others])
        yield from (line for line in named if line is not None and alike.get(line.tree) is line)
        yield from (line for line in alike.values() if line.name != name)

    def _sketch(self, line: Line) -> Sketch | None:
        """Return the sketch of a stored tensor; None when it cannot be read here."""
        with self._lock:
            if line.tree in self._sketches:
                return self._sketches[line.tree]
        read = self._read(line)
        with self._lock:
            return self._sketches.setdefault(line.tree, read)

    def _read(self, line: Line) -> Sketch | None:
        try:
            if not self._objects.has_files(line.tree):  # a guess is not worth a request
                return None
            stored = StoredTensor(self._objects, line)
            record = stored.record
            if not record.chunks or not all(map(self._objects.has, record.files.values())):
                return None
            words = stored.sample(*_middle([chunk.length for chunk in record.chunks], line.dtype))
            return _picked(words, line.dtype)
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


def _sketch(new: TensorWords) -> Sketch:
    return _picked(new.read(*_middle(chunk_lengths(new.dtype, new.shape), new.dtype)), new.dtype)


def _picked(words: Words, dtype: str) -> Sketch:
    """Return the values of words at equal distances."""
    places = np.linspace(0, words.size - 1, min(_SAMPLES, words.size)).astype(np.int64)
    return _ordered(words[places], dtype)


def _distances(sketch: Sketch, others: Sequence[Sketch | None], width: int) -> list[float]:
    """Return the mean number of bits of the differences to each, over the ``width`` of a word."""
    known = [other for other in others if other is not None]
    if not known:
        return [1.0] * len(others)
    bits = iter(np.log2(1 + np.abs(np.stack(known) - sketch)).mean(axis=1).tolist())
    return [1.0 if other is None else next(bits) / width for other in others]


def _ordered(words: Words, dtype: str) -> Sketch:
    """Return words as numbers in the order of the values: of floats, negative ones count down from zero."""
    width = words.itemsize
    if DTYPES[dtype].kind in ("float", "complex"):
        top = words.dtype.type(1 << (8 * width - 1))
        magnitude = (words & ~top).astype(np.float64)
        signed: Sketch = np.where(words & top, -magnitude, magnitude)
        return signed
    letter = "i" if DTYPES[dtype].kind == "int" else "u"
    return words.view(f"<{letter}{width}").astype(np.float64)
