"""Reading a tensor through its layers, chunk by chunk.

The value of a tensor is its last layer.  A chunk that has no file in a layer is that chunk of the
layer's base, which has the same dtype and shape then.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache, partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from theta import codecs
from theta._numpy import np
from theta.codecs import dense
from theta.codecs.base import Decoder, Each, Target, word_dtype, word_size
from theta.dtypes import DTYPES
from theta.errors import CodecError, CorruptError
from theta.formats.layout import Source
from theta.store.format import tensor_tree
from theta.store.format.tensor_tree import Layer, Record
from theta.store.odb.objects import Objects
from theta.store.read.chunk_cache import ChunkCache

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Words = NDArray[Any]

_KEPT: Final = 16 << 20
"""Bytes of decoded chunks that are kept of one layer: codecs that move rows come back to them."""
MOST_DECODED: Final = 64
"""Bytes decoded for each byte of a value, and bytes that its layers declare for each of them.

Moved rows may come from every chunk of the base; what is compared with bases is so small
(``layer_plan.LARGEST``) that no honest tensor comes to more than 50.  What layers declare is bounded
when they are written: :func:`declares_too_much`.
"""
SLACK: Final = 4 << 30


class Budget:
    """The bytes that may still be decoded; threads may share it."""

    def __init__(self, nbytes: int) -> None:
        self._left = MOST_DECODED * nbytes + SLACK
        self._lock = threading.Lock()

    def spend(self, nbytes: int) -> None:
        """Take ``nbytes`` that are going to be decoded; raises :class:`CodecError` if fewer are left."""
        with self._lock:
            self._left -= nbytes
        if self._left < 0:
            raise CodecError("it would take too much work to decode; its layers read each other too often")


@lru_cache(1024)
def declared(layers: tuple[Layer, ...]) -> int:
    """Return the bytes of the last of ``layers`` and of those that it rests on."""
    total, number = 0, len(layers) - 1 if layers else None
    while number is not None:
        layer = layers[number]
        total += DTYPES[layer.dtype].nbytes(layer.shape)
        number = layer.base
    return total


def declares_too_much(layers: Sequence[Layer], nbytes: int) -> bool:
    """Return whether ``layers`` declare more bytes than a value of ``nbytes`` may need.

    Layers that theta writes never do, so any number of tensors in one file stays within its budget.
    """
    return declared(tuple(layers)) > MOST_DECODED * nbytes


class HeldValue:
    """The value of a layer as it lies somewhere else; nothing proves it but what is decoded on top of it.

    A source with a method ``view`` lets its bytes be looked at without a copy.
    """

    def __init__(self, source: Source, offset: int, dtype: str, shape: tuple[int, ...]) -> None:
        self._read: Callable[[int, int], bytes | memoryview] = getattr(source, "view", source.read)
        self._offset = offset
        self.dtype, self.shape = dtype, shape
        self.lengths = tensor_tree.chunk_lengths(dtype, shape)

    def chunk(self, number: int) -> Words:
        """Return the words of chunk ``number``."""
        start, size = sum(self.lengths[:number]), word_size(self.dtype)
        return self.read(start // size, (start + self.lengths[number]) // size)

    def read(self, start: int, stop: int) -> Words:
        """Return the words from ``start`` to before ``stop``."""
        size = word_size(self.dtype)
        if not 0 <= start <= stop <= sum(self.lengths) // size:
            raise CodecError("a layer reads outside of its base")
        raw = self._read(self._offset + start * size, (stop - start) * size)
        if len(raw) != (stop - start) * size:
            raise CodecError("the base of a layer became shorter")
        return np.frombuffer(raw, word_dtype(self.dtype))


Held = tuple[int, HeldValue]
"""The number of a layer, and its value."""


class LayerView:
    """One layer of a tensor as a whole tensor: ``theta.codecs.base.Base`` over stored chunks.

    Args:
        objects: where the chunks are.
        record: the tensor's ``@tensor``.
        number: the layer.
        base: the view of the layer below, if there is one already.
        held: a layer, and its value as it lies somewhere else: it is read there, with none below it.
        budget: what decoding may cost; by default what is due to one tensor.
        shared: decoded chunks of layers, which other tensors may have too.

    Threads may share a view.
    """

    def __init__(
        self,
        objects: Objects,
        record: Record,
        number: int,
        base: LayerView | None = None,
        budget: Budget | None = None,
        held: Held | None = None,
        shared: ChunkCache | None = None,
    ) -> None:
        layer = record.layers[number]
        self._objects, self._record, self._number = objects, record, number
        self._codec = layer.codec
        self.dtype, self.shape = layer.dtype, layer.shape
        self.lengths = _lengths(record, number)
        self._budget = budget or Budget(record.nbytes)
        self._base: LayerView | HeldValue | None = base
        if layer.base is None:
            self._base = None
        elif held is not None and held[0] == layer.base:
            self._base = held[1]
        elif base is None:
            self._base = LayerView(objects, record, layer.base, None, self._budget, held, shared)
        self._lock = threading.Lock()
        self._decoder: Decoder | None = None
        self._whole: Words | None = None
        self._shared = shared
        self._check()

    def _check(self) -> None:
        if (self._base is None) != (self._codec == dense.NAME):
            raise CodecError(f"a layer of codec {self._codec} with the wrong kind of base")

    @cached_property
    def _kept(self) -> ChunkCache:
        """Decoded chunks that :meth:`read` comes back to."""
        with self._lock:
            found: ChunkCache = self.__dict__.setdefault("_kept", ChunkCache(_KEPT))
        return found

    def chunk(self, number: int) -> Words:
        """Return the words of chunk ``number``."""
        self._budget.spend(self.lengths[number])
        payload_id = self._record.files.get(tensor_tree.file_name(self._number, number))
        if payload_id is None:
            return self._from_base(number)
        if self._base is None:
            if self._shared is not None:
                return self._shared.get((payload_id, self.dtype), lambda: self._alone(number, payload_id))
            return self._objects.once(payload_id, self.dtype, lambda: self._alone(number, payload_id))
        if self._shared is not None:
            return self._shared.get((self._identity, number), lambda: self._on_base(number, payload_id))
        return self._on_base(number, payload_id)

    @cached_property
    def _identity(self) -> bytes:
        """All that decides the value of the layer: its files, and those of the layers below."""
        own = f"{self._number}."
        files = {name[len(own) :]: oid for name, oid in self._record.files.items() if name.startswith(own)}
        below = self._base._identity if isinstance(self._base, LayerView) else b""
        text = repr((self._codec, self.dtype, self.shape, sorted(files.items())))
        return hashlib.sha256(below + text.encode()).digest()

    def _on_base(self, number: int, payload_id: str) -> Words:
        size = word_size(self.dtype)
        start = sum(self.lengths[:number]) // size
        stop = start + self.lengths[number] // size
        return self._ready().decode(self._objects.chunk(payload_id), start, stop)

    def _alone(self, number: int, payload_id: str, out: Words | None = None) -> Words:
        size, payload = word_size(self.dtype), self._objects.chunk(payload_id)
        rotated = dense.is_rotated(self.dtype)
        return dense.decode_words(payload, size, self.lengths[number] // size, rotated, out)

    def _from_base(self, number: int) -> Words:
        is_cut_by_content = self.dtype == "bytes" and self._number == len(self._record.layers) - 1
        has_base = self._base is not None and (self._base.dtype, self._base.shape) == (self.dtype, self.shape)
        if self._base is None or not has_base or is_cut_by_content:
            raise CorruptError(f"a tensor lacks chunk {number} of layer {self._number}")
        return self._base.chunk(number)

    def _ready(self) -> Decoder:
        assert self._base is not None
        with self._lock:
            if self._decoder is None:
                shared = self._record.files.get(tensor_tree.shared_name(self._number))
                data = self._objects.chunk(shared) if shared else None
                module = codecs.codec(self._codec)
                self._decoder = module.decoder(data, Target(self.dtype, self.shape), self._base)
            decoder: Decoder = self._decoder
        return decoder

    def read(self, start: int, stop: int) -> Words:
        """Return the words from ``start`` to before ``stop``."""
        size = word_size(self.dtype)
        step = self.lengths[0] // size if self.lengths else 1
        if not 0 <= start <= stop <= sum(self.lengths) // size:
            raise CodecError("a layer reads outside of its base")
        if self._whole is not None:
            return self._whole[start:stop]
        numbers = range(start // step, -(-stop // step)) if stop > start else range(0)
        parts = [
            self._kept.get(number, partial(self.chunk, number))[
                max(0, start - number * step) : stop - number * step
            ]
            for number in numbers
        ]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.empty(0, f"<u{size}")

    def whole(self, each: Each = map) -> Words:
        """Return all words, not to be written to; ``each`` runs the decoding of chunks.

        They are kept where as many would be in chunks, and likewise those of the layers below.
        """
        if self._whole is not None:
            return self._whole
        if isinstance(self._base, LayerView) and sum(self._base.lengths) <= _KEPT:
            self._base.whole(each)
        size, numbers = word_size(self.dtype), range(len(self.lengths))
        ends = [*accumulate((length // size for length in self.lengths), initial=0)]
        words = np.empty(ends[-1], word_dtype(self.dtype))
        list(each(lambda number: self._fill(number, words[ends[number] : ends[number + 1]]), numbers))
        if words.nbytes <= _KEPT:
            self._whole = words
        return words

    def _fill(self, number: int, out: Words) -> None:
        """Put the words of chunk ``number`` into ``out``, where one that stands alone is decoded."""
        payload_id = self._record.files.get(tensor_tree.file_name(self._number, number))
        if payload_id is None or self._base is not None:
            out[:] = self.chunk(number)
            return
        self._budget.spend(out.nbytes)
        known = self._objects.remembered(payload_id, self.dtype)
        if known is None:
            self._alone(number, payload_id, out)
        else:
            out[:] = known


def _lengths(record: Record, number: int) -> list[int]:
    layer = record.layers[number]
    if number == len(record.layers) - 1:
        return [chunk.length for chunk in record.chunks]
    return tensor_tree.chunk_lengths(layer.dtype, layer.shape)


def stack(objects: Objects, record: Record) -> list[LayerView]:
    """Return all layers of a tensor, lowest first; they share what they decoded."""
    views: list[LayerView] = []
    for number, layer in enumerate(record.layers):
        views.append(LayerView(objects, record, number, None if layer.base is None else views[layer.base]))
    return views


def top(
    objects: Objects,
    record: Record,
    budget: Budget | None = None,
    held: Held | None = None,
    shared: ChunkCache | None = None,
) -> LayerView:
    """Return the layer that is the value."""
    if not record.layers:
        raise CorruptError("a tensor without layers has no chunks")
    Budget(record.nbytes).spend(declared(record.layers))
    return LayerView(objects, record, len(record.layers) - 1, None, budget, held, shared)
