"""torch's oldest checkpoints, made by hand as ``torch.serialization._legacy_load`` reads them.

torch 2.13 opens what ``archive`` makes (``python -m tests.formats.data.check_tar``).
"""

from __future__ import annotations

import io
import pickle
import random
import struct
import tarfile
from typing import Any

import numpy as np
import pytest

from tests.formats.helpers import mutate, scanned, survives
from theta.formats import scan_or_opaque
from theta.formats.layout import BytesSource
from theta.formats.pickle_files.pickle_scan import scan_pickles
from theta.formats.torch import torch_tar
from theta.formats.values import values


class _Named:
    """Pickled as a global that need not exist here."""

    def __init__(self, module: str, name: str) -> None:
        self.path = f"c{module}\n{name}\n".encode()


def _pickle(*parts: object) -> bytes:
    """A tuple of numbers, texts and globals, protocol 2."""
    body = b"".join(part.path if isinstance(part, _Named) else pickle.dumps(part, 2)[2:-1] for part in parts)
    return b"\x80\x02(" + body + b"t."


class _Persistent(pickle.Pickler):
    def persistent_id(self, item: Any) -> str | None:
        return str(item.number) if isinstance(item, Ref) else None


class Ref:
    """Stands for the tensor of a key."""

    def __init__(self, number: int) -> None:
        self.number = number


def tensor(key: int, storage: int, shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> bytes:
    rank = len(shape)
    head = _pickle(key, storage, _Named("torch", "FloatTensor"))
    return head + struct.pack(f"<i4x{2 * rank + 1}q", rank, *shape, *strides, offset)


W = np.arange(12, dtype=np.float32)
N = np.arange(5, dtype=np.int64)
VIEWS = pickle.dumps([(30, 10, 4, 8)], 2)


def archive(
    views: bytes = VIEWS, storages: bytes | None = None, tensors: bytes | None = None, **extra: bytes
) -> bytes:
    """Two storages, a view of one, three tensors of which one is transposed, in a dict."""
    if storages is None:
        storages = pickle.dumps(2, 2)
        for key, kind, array in ((10, "FloatStorage", W), (20, "LongStorage", N)):
            storages += _pickle(key, "cpu", _Named("torch", kind))
            storages += struct.pack("<q", array.size) + array.tobytes()
        storages += views
    if tensors is None:
        tensors = pickle.dumps(3, 2) + tensor(1, 10, (4, 3), (1, 4), 0)
        tensors += tensor(2, 20, (5,), (1,), 0) + tensor(3, 30, (2, 2), (2, 1), 2)
    objects = io.BytesIO()
    _Persistent(objects, 2).dump({"w": Ref(1), "n": [Ref(2)], "part": Ref(3), "step": 9})
    members = {"sys_info": pickle.dumps({"little_endian": True}, 2)} | extra
    members |= {"pickle": objects.getvalue(), "tensors": tensors, "storages": storages}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def test_storages_are_named_after_the_tensors_that_view_them() -> None:
    data = archive()
    layout = scanned(data, "torch-tar")
    assert [(t.name, t.dtype, t.shape) for t in layout.tensors] == [
        ("w", "f32", (3, 4)),
        ("n.0", "i64", (5,)),
    ]
    assert data[layout.tensors[0].offset : layout.tensors[0].end] == W.tobytes()
    found = {
        name: np.frombuffer(b"".join(v.chunks()), np.int64 if v.dtype == "i64" else np.float32).reshape(
            v.shape
        )
        for name, v in values(layout, BytesSource(data)).items()
    }
    assert (found["w"] == W.reshape(3, 4).T).all()
    assert found["part"].tolist() == [[6, 7], [8, 9]]


@pytest.mark.parametrize(
    "data",
    [
        archive(storages=b""),
        archive(storages=pickle.dumps(2, 2)),
        archive(storages=pickle.dumps(-1, 2) + VIEWS),
        archive(storages=pickle.dumps(10**9, 2) + VIEWS),
        archive(views=pickle.dumps([(1, 2)], 2)),
        archive(views=b""),
        archive(tensors=pickle.dumps(1, 2) + tensor(1, 99, (2,), (1,), 0)),
        archive(tensors=pickle.dumps(2, 2) + tensor(1, 10, (2,), (1,), 0)),
        archive(tensors=pickle.dumps(1, 2) + tensor(1, 10, (2,), (1,), 0)[:-1]),
        archive(storages=pickle.dumps(1, 2) + _pickle(1, "cpu", _Named("os", "system")) + bytes(8) + VIEWS),
        archive(
            storages=pickle.dumps(1, 2)
            + _pickle(1, "cpu", _Named("torch", "FloatStorage"))
            + struct.pack("<q", 2**62)
            + VIEWS
        ),
        archive()[:4000],
    ],
)
def test_what_torch_could_not_read_is_opaque(data: bytes) -> None:
    layout, reason = scan_or_opaque(BytesSource(data))
    assert layout.format == "opaque"
    assert reason.startswith(("torch", "pickle", "tar")) or not torch_tar.detect(BytesSource(data))


def test_a_tensor_outside_its_storage_is_no_view() -> None:
    data = archive(tensors=pickle.dumps(1, 2) + tensor(1, 10, (100,), (1,), 0))
    assert scanned(data, "torch-tar").views == ()


def test_pickles_between_the_numbers_are_scanned() -> None:
    evil = pickle.dumps(1, 2) + _pickle(1, "cpu", _Named("torch", "FloatStorage")) + struct.pack("<q", 1)
    evil += bytes(4) + b"\x80\x02cos\nsystem\n(X\x02\0\0\0lstR."
    report = scan_pickles(BytesSource(archive(storages=evil)))
    assert report.worst() == "dangerous"
    assert {(f.where, f.name) for f in report.findings if f.verdict == "dangerous"} == {
        ("storages", "system")
    }
    assert scan_pickles(BytesSource(archive())).worst() == "unknown"  # FloatTensor is a class of a library


def run_mutations(count: int, seed: int) -> int:
    """Check ``count`` mutated archives; the number that were read."""
    rng = random.Random(seed)
    data = archive()
    start = data.index(b"ustar")
    return sum(
        survives(data[:start] + mutate(data[start:], rng), torch_tar.scan) is not None for _ in range(count)
    )


def test_mutated_files_are_read_or_refused() -> None:
    assert run_mutations(1_000, seed=1) > 10
