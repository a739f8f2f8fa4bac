"""Plans of new files, made before their values are known, and files in memory that follow a plan."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

from theta.errors import FormatError
from theta.formats.derived import arguments, derive
from theta.formats.fields import Derived
from theta.formats.layout import Layout, Tensor, TensorSpec, nbytes


@dataclass(frozen=True, slots=True)
class Plan:
    """The layout of a new file, and the bytes of its literals.

    ``literals`` are ``(offset, bytes)`` and cover exactly :meth:`Layout.literals`.  To write the file, put
    the values into the extents, then compute the derived fields in their order.
    """

    layout: Layout
    literals: tuple[tuple[int, bytes], ...]


class Builder:
    """Builds a plan from the start of the file to its end."""

    def __init__(self) -> None:
        self.size = 0
        self._tensors: list[Tensor] = []
        self._derived: list[Derived] = []
        self._literals: list[tuple[int, bytearray]] = []

    def literal(self, data: bytes) -> None:
        """Append literal bytes."""
        if self._literals and self._literals[-1][0] + len(self._literals[-1][1]) == self.size:
            self._literals[-1][1].extend(data)
        elif data:
            self._literals.append((self.size, bytearray(data)))
        self.size += len(data)

    def tensor(self, spec: TensorSpec) -> None:
        """Append an extent for ``spec``; raises ``FormatError`` for an impossible shape."""
        length = nbytes(spec.name, spec.dtype, spec.shape)
        self._tensors.append(Tensor(spec.name, spec.dtype, spec.shape, self.size, length))
        self.size += length

    def hole(self, width: int) -> int:
        """Append ``width`` bytes for a derived field; return their offset."""
        self.size += width
        return self.size - width

    def derive(self, field: Derived) -> None:
        """Add a derived field for a hole, after all fields that it depends on."""
        self._derived.append(field)

    def plan(self, name: str) -> Plan:
        """Return the plan of a file of the format ``name``."""
        layout = Layout(name, self.size, tuple(self._tensors), tuple(self._derived))
        layout.validate()
        return Plan(layout, tuple((start, bytes(data)) for start, data in self._literals))


class PlannedFile:
    """A new file in memory: a source of the bytes of ``plan``.

    ``values`` are the raw bytes of each tensor by name; they are referred to, not copied.  Raises
    :class:`FormatError` if one has another length than its extent.
    """

    def __init__(self, plan: Plan, values: Mapping[str, memoryview]) -> None:
        self.size = plan.layout.size
        fields = {place: bytearray(place.width) for place in plan.layout.derived}
        pieces = [(start, memoryview(data)) for start, data in plan.literals]
        pieces += [(place.offset, memoryview(room)) for place, room in fields.items()]
        for tensor in plan.layout.tensors:
            if values[tensor.name].nbytes != tensor.length:
                raise FormatError(f"tensor {tensor.name} is not as long as its shape says")
            pieces.append((tensor.offset, values[tensor.name]))
        self._pieces = sorted((piece for piece in pieces if piece[1].nbytes), key=lambda piece: piece[0])
        self._starts = [start for start, _ in self._pieces]
        self._open = fields
        self.forgotten = 0
        """Bytes of the values that were let go of."""

    def view(self, offset: int, length: int) -> memoryview:
        """Return exactly ``length`` bytes from ``offset``, not copied if they are of one value."""
        number = bisect_right(self._starts, offset) - 1
        if number >= 0 and length:
            start, data = self._pieces[number]
            found = data[offset - start : offset - start + length]
            if found.nbytes == length:
                return found
        return memoryview(self.read(offset, length))

    def forget(self, offset: int, length: int) -> None:
        """Let go of the value of ``length`` bytes at ``offset``; to read it again raises ``FormatError``."""
        number = bisect_right(self._starts, offset) - 1
        if number >= 0 and (self._starts[number], self._pieces[number][1].nbytes) == (offset, length):
            self._pieces[number] = (offset, memoryview(b""))
            self.forgotten += length

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes from ``offset``; raises ``FormatError`` outside the file.

        The first read computes the derived fields, so threads may share the file from the second on.
        """
        if offset < 0 or length < 0 or offset + length > self.size:
            raise FormatError(f"read of {length} bytes at {offset} in a file of {self.size} bytes")
        still_open, self._open = self._open, {}
        for place, room in still_open.items():
            room[:] = derive(place, arguments(place, self))
        parts: list[memoryview] = []
        number = bisect_right(self._starts, offset) - 1
        while length:
            start, data = self._pieces[number]
            part = data[offset - start : offset - start + length]
            if not part.nbytes:
                raise FormatError(f"the value at {start} is not in memory any more")
            parts.append(part)
            offset, length, number = offset + part.nbytes, length - part.nbytes, number + 1
        return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)
