"""A tensor that is read when its values are asked for, and only the part that is."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from threading import RLock
from typing import TYPE_CHECKING, Any

from theta.api import destinations
from theta.dtypes import DTYPES, numpy_dtype
from theta.errors import FormatError, UsageError, concerning
from theta.formats.values import Key, Strided

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import DTypeLike, NDArray


class Access:
    """An open checkpoint: its readers take turns, and find it as it was opened, until it is closed.

    Args:
        label: what errors name.
        keeper: what must not be removed as long as this is read.
        lock: the lock of the repository.
        verify: raises an error where the file that is read has changed.
        stack: what is open; it is closed with this object, or when nobody holds it any more.
    """

    def __init__(
        self, label: str, keeper: object, lock: RLock, verify: Callable[[], None], stack: contextlib.ExitStack
    ) -> None:
        self._label, self._keeper, self._lock, self._verify = label, keeper, lock, verify
        self._finish = weakref.finalize(self, stack.close)

    @contextlib.contextmanager
    def reading(self, name: str = "") -> Iterator[None]:
        """Let a block read tensor ``name``; raises :class:`theta.errors.UsageError` once it is closed."""
        with self._lock, concerning(self._label), concerning(name, FormatError):
            if not self._finish.alive:
                raise UsageError("it was closed", hint="open it anew")
            yield
            self._verify()

    def close(self) -> None:
        """Close what is open."""
        with self._lock:
            self._finish()


class LazyTensor:
    """One tensor of a checkpoint, or a part of one: known by dtype and shape, not read yet.

    ``tensor[key]`` is a part, by numpy's basic indexing (whole numbers, slices with any step, ``...``,
    ``None``), and as lazy as the whole: ``tensor[10:20].numpy()`` decodes the chunks of 4 MiB that have
    these rows.  ``numpy()`` and ``numpy.asarray(tensor)`` read; no array is kept, so reading again decodes
    again.
    """

    def __init__(self, name: str, part: Strided, access: Access) -> None:
        self._name, self._part, self._access = name, part, access

    @property
    def name(self) -> str:
        """The name of the tensor in its checkpoint."""
        return self._name

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy dtype; bfloat16 and the float8 types are those of ml_dtypes.

        Raises:
            theta.errors.FormatError: for types packed below one byte (``f4``), which numpy lacks.
        """
        if DTYPES[self._part.dtype].kind == "packed":
            raise FormatError(f"numpy has no {self._part.dtype}", hint="dtype_name tells the type")
        return numpy_dtype(self._part.dtype)

    @property
    def dtype_name(self) -> str:
        """The dtype as theta's manifests spell it: ``f32``, ``bf16``, ``f8_e4m3``, ``f4``."""
        return self._part.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Elements along each axis."""
        return self._part.shape

    @property
    def ndim(self) -> int:
        """How many axes there are."""
        return len(self._part.shape)

    @property
    def size(self) -> int:
        """How many elements there are."""
        count = 1
        for extent in self._part.shape:
            count *= extent
        return count

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return self._part.nbytes

    def __getitem__(self, key: Key | tuple[Key, ...]) -> LazyTensor:
        """Return a part, by numpy's basic indexing; nothing is read.  Raises ``IndexError`` as numpy does."""
        return LazyTensor(self._name, self._part[key], self._access)

    def __len__(self) -> int:
        """Return the number of elements along the first axis."""
        if not self._part.shape:
            raise TypeError("len() of a tensor without axes")
        return self._part.shape[0]

    def __iter__(self) -> Iterator[LazyTensor]:
        """Return an iterator over the parts along the first axis."""
        return (self[number] for number in range(len(self)))

    def numpy(self) -> NDArray[Any]:
        """Read the values into a new array of :attr:`dtype` and :attr:`shape`, in C order.

        The array is the caller's to change.  Each chunk that is decoded is proven by its SHA-256.

        Raises:
            theta.errors.CorruptError: a chunk is not what its digest says.
            theta.errors.MissingObjectsError: the repository lacks a chunk, and no remote sends it.
            theta.errors.ChangedWhileReadError: a file of the worktree is not the one that was opened.
            theta.errors.FormatError: the type is packed below one byte.
        """
        with self._access.reading(self._name):
            return self._part.array()

    def into(self, out: NDArray[Any]) -> None:
        """Read the values into ``out``, an array of the same dtype and shape; raises as :meth:`numpy`.

        Raises:
            theta.errors.FormatError: dtype or shape differ.
            theta.errors.UsageError: elements of ``out`` share memory.
        """
        if (out.dtype, out.shape) != (self.dtype, self.shape):
            raise FormatError(f"{self._name} is {self.dtype} {list(self.shape)}, the array is not")
        destinations.refuse_overlaps(self._name, out)
        with self._access.reading(self._name):
            self._part.into(out)

    def torch(self) -> Any:
        """Read the values into a new tensor of torch, which the program imported; raises as :meth:`numpy`."""
        return destinations.as_torch(self.numpy())

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """Return the array for ``numpy.asarray(tensor)``; raises ``ValueError`` if no copy is allowed."""
        if copy is False:
            raise ValueError("the values of a lazy tensor are read into a new array")
        found = self.numpy()
        return found if dtype is None else found.astype(dtype, copy=False)

    def tobytes(self) -> bytes:
        """Return the values in C order, little-endian; raises as :meth:`numpy`, but takes packed types."""
        with self._access.reading(self._name):
            return self._part.tobytes()

    def __repr__(self) -> str:
        return f"LazyTensor({self._name!r}, {self._part.dtype} {list(self._part.shape)})"
