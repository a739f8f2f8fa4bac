"""Plans of new files, made before their values are known."""

from __future__ import annotations

from dataclasses import dataclass

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
