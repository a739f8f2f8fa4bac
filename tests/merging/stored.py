"""Checkpoints in a repository without commits, for tests of the merge engine."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support import Repo, make_model, read_model
from theta.formats.layout import BytesSource
from theta.merging import engine
from theta.merging.engine import MergeOptions, Outcome
from theta.merging.strategies import Policy
from theta.porcelain.workspace.session import Session
from theta.store.files import file_scan
from theta.store.format.manifest import Manifest
from theta.store.read.reassembly import Restorer
from theta.store.write.snapshot import Snapshot

Array = NDArray[Any]
Model = Mapping[str, Array]


class Store:
    """A repository to store checkpoints in, and to merge them."""

    def __init__(self, place: Path) -> None:
        self.session = Session.here(Repo.create(place / "repo").path)
        self.objects = self.session.objects
        self._scratch = place / "scratch.safetensors"

    def put(self, model: Model, *bases: Manifest, metadata: dict[str, str] | None = None) -> Manifest:
        """The manifest of a safetensors file with these tensors."""
        make_model(self._scratch, dict(model), metadata)
        return self.put_file(self._scratch.read_bytes(), *bases)

    def put_file(self, data: bytes, *bases: Manifest) -> Manifest:
        """The manifest of a file."""
        source = BytesSource(data)
        with self.objects.writing() as pack:
            found = file_scan.scan(source, None, None)
            return Snapshot(self.objects, pack, bases).store(source, found, "m", None).manifest

    def get(self, manifest: Manifest) -> dict[str, Array]:
        """The tensors of a safetensors file."""
        self._scratch.write_bytes(self.file(manifest))
        return read_model(self._scratch)

    def file(self, manifest: Manifest) -> bytes:
        """The bytes of the file."""
        return bytes(Restorer(self.objects, manifest).data())

    def merge(
        self, base: Manifest | None, *sides: Manifest, policy: Policy, options: MergeOptions | None = None
    ) -> Outcome:
        """Merge, and keep what was written."""
        with self.objects.writing() as pack:
            return engine.merge(self.objects, pack, base, sides, policy, options)


def npz(model: Model) -> bytes:
    """Return the bytes that ``numpy.savez`` writes."""
    out = io.BytesIO()
    np.savez(out, **dict(model))  # type: ignore[arg-type]
    return out.getvalue()
