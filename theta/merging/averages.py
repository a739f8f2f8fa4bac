"""Weighted means of many versions of one checkpoint, such as the steps of a training.

- ``uniform``: the mean (SWA, 1803.05407; model soups, 2203.05482).
- ``linear``, ``cosine``, ``inv-sqrt``: the mean that stands for a decay of the learning rate of that shape
  (WSM, 2507.17634): version ``j`` of ``0..k`` counts ``w_j - w_{j+1}``, where the decay goes from ``w_0 = 1``
  to ``w_{k+1} = 0``.  A linear decay is the uniform mean.
- ``wma``: the n-th version counts ``n`` (PMA, 2505.12082).
- ``ema:D``: ``e_n = D e_{n-1} + (1 - D) x_n``, which begins with the first version.

A chunk is read of one version after the other, so that what is stored on top of each other is read once.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, Protocol

from theta._numpy import np
from theta.codecs.base import word_dtype
from theta.errors import UsageError
from theta.merging import storing
from theta.merging.reading import SHARED
from theta.merging.storing import Streamed
from theta.merging.strategies import is_averaged
from theta.merging.strategies.numbers import narrow, widen
from theta.parallel import ordered
from theta.progress import Progress, begin
from theta.store.format import listings
from theta.store.format.manifest import Line, Manifest
from theta.store.odb.objects import Objects
from theta.store.odb.packs import PackWriter
from theta.store.read.chunk_cache import ChunkCache
from theta.store.read.coming_file import ComingFile
from theta.store.read.stored_tensor import StoredTensor
from theta.store.write.layer_plan import Planned, Ready

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_DECAYS: Final[Mapping[str, Callable[[float], float]]] = {
    "linear": lambda part: 1 - part,
    "cosine": lambda part: (1 + math.cos(math.pi * part)) / 2,
    "inv-sqrt": lambda part: 1 - math.sqrt(part),
}
"""Shape -> the decay after a part of the versions, from 1 to 0."""
SHAPES: Final = ("uniform", *_DECAYS, "wma", "ema:D")
_KEPT: Final = 64 << 20
"""Bytes of decoded layers that are kept of one tensor while its versions are read."""
_IN_FLIGHT: Final = 128 << 20
_ACCURATE: Final = np.float64


def coefficients(shape: str, count: int) -> list[float]:
    """Return how much each of ``count`` versions counts, the oldest first; the sum is 1.

    Raises :class:`UsageError` for a shape that is none.
    """
    name, colon, text = shape.partition(":")
    if name == "ema":
        return _moving(_decay(text), count)
    if colon or name not in SHAPES:
        raise UsageError(f"a shape is one of {', '.join(SHAPES)}, not {shape!r}")
    if name == "wma":
        return [2 * number / (count * (count + 1)) for number in range(1, count + 1)]
    if name == "uniform":
        return [1 / count] * count
    decay = [_DECAYS[name](number / count) for number in range(count)] + [0.0]
    return [before - after for before, after in pairwise(decay)]


def _decay(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found < 1:
        raise UsageError(f"the decay of ema is a number from 0 to below 1, not {text!r}", hint="ema:0.99")
    return found


def _moving(decay: float, count: int) -> list[float]:
    found = [(1 - decay) * decay ** (count - number) for number in range(1, count + 1)]
    found[0] = decay ** (count - 1)
    return found


class MeanWorkers(Protocol):
    """Compute means elsewhere."""

    def lines(self, work: Sequence[Line], progress: Progress | None) -> dict[str, Line] | None:
        """Return name -> line of the mean of each of ``work``; None to leave them to threads."""
        ...

    def write(self, work: Sequence[Line], coming: ComingFile, progress: Progress | None) -> bool:
        """Write the mean of each of ``work`` to its places; return False to leave them to threads."""
        ...


class Averaging:
    """The mean of ``versions``, oldest first, which count ``factors``; the file is laid out as the last.

    Tensors that no mean is defined for (integers, booleans, packed codes) are those of the last version.
    Values are added up in float64 and rounded to nearest, ties to even; those of bf16 by way of float32.

    Raises :class:`UsageError` for versions that differ in names, dtypes or shapes.
    """

    def __init__(self, objects: Objects, versions: Sequence[Manifest], factors: Sequence[float]) -> None:
        self._objects, self._versions, self._factors = objects, versions, factors
        self.like = versions[-1]
        for number, version in enumerate(versions):
            self._check(version, len(versions) - 1 - number)
        self._work = [line for line in self.like.lines if self._has_mean(line)]

    def _check(self, version: Manifest, age: int) -> None:
        specs, other = ({(one.name, one.dtype, one.shape) for one in m.lines} for m in (self.like, version))
        for name, dtype, shape in sorted(specs ^ other):
            raise UsageError(
                f"{name} ({dtype}, {list(shape)}) is not in all versions: that {age} before the last differs",
                hint="average versions with the same tensors",
            )

    def _has_mean(self, line: Line) -> bool:
        digests = {version.by_name[line.name].digest for version in self._versions}
        return bool(line.nbytes) and len(digests) > 1 and is_averaged(line.dtype)

    @property
    def names(self) -> list[str]:
        """The tensors that differ between versions."""
        return [line.name for line in self._work]

    # -- results -----------------------------------------------------------------------------

    def store(
        self,
        pack: PackWriter,
        store: str,
        progress: Progress | None = None,
        workers: MeanWorkers | None = None,
    ) -> Manifest:
        """Store the mean in ``pack``, each tensor relative to the nearest version; return its manifest.

        ``workers``, if there are any, store tensors in packs of their own.
        """
        begin(progress, "averaging", sum(line.nbytes for line in self._work))
        made = workers.lines(self._work, progress) if workers is not None else None
        made = self._by_threads(pack, progress) if made is None else made
        lines = tuple(made.get(line.name, line) for line in self.like.lines)
        whole = Manifest(self.like.format, store, self.like.skeleton, lines)
        return listings.write(pack, whole)

    def stored(self, pack: PackWriter, line: Line) -> Line:
        """Store the mean of one tensor, which ``line`` has in the last version; return its line."""
        return self._ready(pack, line).write(pack)

    def _by_threads(self, pack: PackWriter, progress: Progress | None) -> dict[str, Line]:
        made: dict[str, Line] = {}
        for done in ordered(partial(self._ready, pack), self._work, _weight, _IN_FLIGHT):
            line = done.write(pack)
            made[line.name] = line
            if progress is not None:
                progress(line.nbytes)
        return made

    def _ready(self, pack: PackWriter, line: Line) -> Ready | Streamed:
        ends = [self._versions[0].by_name[line.name], self._versions[-1].by_name[line.name]]
        parents = [StoredTensor(self._objects, one) for one in dict.fromkeys(ends)]
        planned = storing.plan(self._objects, line, lambda: self._pieces(line), parents, by_numbers=True)
        return planned.ready(pack) if isinstance(planned, Planned) else planned

    def write(
        self, coming: ComingFile, progress: Progress | None = None, workers: MeanWorkers | None = None
    ) -> None:
        """Write the tensors that differ to their places in ``coming``, the file of the last version.

        ``workers``, if there are any, write to the file as well.
        """
        begin(progress, "averaging", sum(line.nbytes for line in self._work))
        if workers is None or not workers.write(self._work, coming, progress):
            for line in self._work:
                self._put(coming, line, progress)
        for line in self._work:
            coming.done(line.name, line.digest)  # of the value that is not to be written over it

    def _put(self, coming: ComingFile, line: Line, progress: Progress | None) -> None:
        for offset, raw in self.patches(line):
            coming.put(line.name, offset, raw)
            if progress is not None:
                progress(raw.nbytes)

    def patches(self, line: Line) -> Iterator[tuple[int, memoryview]]:
        """Yield the bytes of the mean of one tensor, with their offset in it."""
        offset = 0
        for piece in self._pieces(line, spread=True):
            raw = piece.data.cast("B")
            yield offset, raw
            offset += raw.nbytes

    # -- values ------------------------------------------------------------------------------

    def _pieces(self, line: Line, *, spread: bool = False) -> Iterator[Array]:
        """Yield the words of the mean, chunk by chunk; large tensors are computed on all cores."""
        shared = ChunkCache(_KEPT)
        factors: dict[str, float] = {}
        lines: dict[str, Line] = {}
        for version, factor in zip(self._versions, self._factors, strict=True):
            if not factor:  # 0 times infinity is no number
                continue
            found = version.by_name[line.name]
            lines[found.digest] = found
            factors[found.digest] = factors.get(found.digest, 0.0) + factor
        stored = [StoredTensor.beside(self._objects, one, shared) for one in lines.values()]
        readers = [[read for _, read in one.pieces()] for one in stored]
        work = partial(_mean, line.dtype, [*factors.values()])
        chunks = zip(*readers, strict=True)
        return ordered(work, chunks) if spread or line.nbytes > SHARED else map(work, chunks)


def _weight(line: Line) -> int:
    return 3 * line.nbytes


def _mean(dtype: str, factors: Sequence[float], reads: Sequence[Callable[[], memoryview]]) -> Array:
    """Return the words of the weighted sum of the chunks that ``reads`` give, added up in order."""
    total: Array | None = None
    left = deque(zip(factors, reads, strict=True))
    with np.errstate(all="ignore"):
        while left:
            factor, read = left.popleft()
            values = widen(np.frombuffer(read(), word_dtype(dtype)), dtype)
            product = np.multiply(values, factor, dtype=_ACCURATE)
            total = product if total is None else np.add(total, product, out=total)
    assert total is not None
    return narrow(total.astype(np.float32) if dtype == "bf16" else total, dtype)
