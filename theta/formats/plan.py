"""New files laid out before there are values: what a format's writer returns."""

from __future__ import annotations

from dataclasses import dataclass

from theta.formats.fields import Derived
from theta.formats.layout import Layout, Tensor, TensorSpec, nbytes


@dataclass(frozen=True, slots=True)
class Plan:
    """A file that is known but for its tensors: the layout, and the bytes of its literals.

    ``literals`` are ``(offset, bytes)`` and cover exactly :meth:`Layout.literals`.  Who has the values puts
    them into the extents, then computes the derived fields in their order.
    """

    layout: Layout
    literals: tuple[tuple[int, bytes], ...]


class Builder:
    """Lays a file out from its beginning to its end."""

    def __init__(self) -> None:
        self.size = 0
        self._tensors: list[Tensor] = []
        self._derived: list[Derived] = []
        self._literals: list[tuple[int, bytearray]] = []

    def literal(self, data: bytes) -> None:
        """Bytes that are known."""
        if self._literals and self._literals[-1][0] + len(self._literals[-1][1]) == self.size:
            self._literals[-1][1].extend(data)
        elif data:
            self._literals.append((self.size, bytearray(data)))
        self.size += len(data)

    def tensor(self, spec: TensorSpec) -> None:
        """Room for the values of ``spec``; ``FormatError`` for an impossible one."""
        length = nbytes(spec.name, spec.dtype, spec.shape)
        self._tensors.append(Tensor(spec.name, spec.dtype, spec.shape, self.size, length))
        self.size += length

    def hole(self, width: int) -> int:
        """Room for a derived field; its offset."""
        self.size += width
        return self.size - width

    def derive(self, field: Derived) -> None:
        """Fill a hole, after all that it depends on."""
        self._derived.append(field)

    def plan(self, name: str) -> Plan:
        """The finished plan of a file of the format ``name``."""
        layout = Layout(name, self.size, tuple(self._tensors), tuple(self._derived))
        layout.validate()
        return Plan(layout, tuple((start, bytes(data)) for start, data in self._literals))
