"""Describing how the tensors of a checkpoint are stored: codecs, layers, bytes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from theta.errors import concerning
from theta.porcelain.workspace.session import Session
from theta.store.format.manifest import Line, Manifest
from theta.store.read.tensor_records import layer_of, read_record


@dataclass(frozen=True)
class LayerSize:
    """One layer of a tensor; ``base`` is the number of the layer it applies to, or None."""

    codec: str
    base: int | None
    stored: int


@dataclass(frozen=True)
class Description:
    """A tensor and the sizes of its layers, lowest first."""

    line: Line
    layers: tuple[LayerSize, ...]

    @property
    def stored(self) -> int:
        """The stored bytes of all layers; restoring the tensor reads all of them."""
        return sum(layer.stored for layer in self.layers)

    @property
    def ratio(self) -> float:
        """Stored bytes over raw bytes; 0 for a tensor without bytes."""
        return self.stored / max(self.line.nbytes, 1)

    @property
    def chain(self) -> str:
        """The codecs of all layers, lowest first, without their versions."""
        return " + ".join(layer.codec.partition("/")[0] for layer in self.layers)

    def as_json(self) -> dict[str, Any]:
        """Return the description as plain data."""
        layers = [{"codec": layer.codec, "base": layer.base, "stored": layer.stored} for layer in self.layers]
        return {
            "tensor": self.line.name,
            "dtype": self.line.dtype,
            "shape": list(self.line.shape),
            "bytes": self.line.nbytes,
            "stored": self.stored,
            "layers": layers,
        }


def describe(session: Session, manifest: Manifest, name: str = "") -> Iterable[Description]:
    """Yield a description of each tensor of ``manifest``, or of the one called ``name``.

    Raises :class:`MissingObjectsError` if chunks are not in this repository.
    """
    wanted = [line for line in manifest.lines if name in ("", line.name)]
    session.objects.expect({line.tree: line.nbytes for line in wanted})
    for line in wanted:
        with concerning(line.name):
            layers = _layers(session, line)
        yield Description(line, layers)


def _layers(session: Session, line: Line) -> tuple[LayerSize, ...]:
    if not line.nbytes:
        return ()
    record = read_record(session.objects, line.tree)
    sizes = [0] * len(record.layers)
    for file, oid in record.files.items():
        if 0 <= (number := layer_of(file)) < len(sizes):
            sizes[number] += session.objects.size(oid)
    return tuple(
        LayerSize(layer.codec, layer.base, size) for layer, size in zip(record.layers, sizes, strict=True)
    )
