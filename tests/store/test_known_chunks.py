"""The chunks of a file that is added again are known by a hash with a secret key."""

from __future__ import annotations

import hashlib
import json
import random
import stat
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.compat.inprocess import theta
from tests.store.test_snapshot import model, normal
from tests.support import Repo
from theta.porcelain.stage import adding
from theta.store.files import known_chunks
from theta.store.files.ahead import Ahead
from theta.store.files.known_chunks import KnownChunks
from theta.store.format.tensor_tree import Chunk
from theta_native.digests import keyed  # as a command has imported it when it reads

RAWS = [random.Random(n).randbytes(size) for n, size in enumerate((1 << 18, 3 << 18, 1000, 0))]
CHUNKS = tuple(map(Chunk.of, RAWS))


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Digests:
    """Counts the chunks whose digest is taken."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self._real = 0, Chunk.of_each
        monkeypatch.setattr(Chunk, "of_each", self._of_each)

    def _of_each(self, raws: Sequence[bytes | memoryview]) -> tuple[Chunk, ...]:
        self.count += len(raws)
        return self._real(raws)


@pytest.fixture
def digests(monkeypatch: pytest.MonkeyPatch) -> Digests:
    # It is compiled by then, also where NUMBA_BOUNDSCHECK leaves kernels to numba.
    monkeypatch.setattr(keyed.KeyedHash, "is_ready", lambda _: True)
    return Digests(monkeypatch)


def test_large_chunks_are_hashed_once(tmp_path: Path, digests: Digests) -> None:
    path = tmp_path / "known"
    known = KnownChunks(path)
    assert known.chunks(RAWS) == CHUNKS
    assert digests.count == 4
    known.save()
    assert KnownChunks(path).chunks(RAWS) == CHUNKS
    assert digests.count == 6, "the small ones again"
    changed = bytearray(RAWS[1])
    changed[-1] ^= 1
    assert KnownChunks(path).chunks([bytes(changed)]) == (Chunk.of(bytes(changed)),)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_without_the_kernel_all_are_hashed(
    tmp_path: Path, digests: Digests, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = KnownChunks(tmp_path / "known")
    monkeypatch.setattr(keyed.KeyedHash, "is_ready", lambda _: False)
    assert known.chunks(RAWS) == known.chunks(RAWS) == CHUNKS
    assert digests.count == 8
    known.save()
    assert not (tmp_path / "known").exists()


@pytest.mark.usefixtures("digests")
def test_the_ones_used_last_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_chunks, "_MOST", 2)
    path = tmp_path / "known"
    raws = [random.Random(n).randbytes(1 << 18) for n in range(9, 12)]
    for used in (raws[:2], raws[::2]):
        known = KnownChunks(path)
        known.chunks(used)
        known.save()
    text = json.loads(path.read_text())["theta.known/v1"]
    assert list(json.loads(text)["chunks"].values()) == [Chunk.of(raws[n]).digest.hex() for n in (0, 2)]


@pytest.mark.parametrize("number", range(8))
def test_a_damaged_note_is_none(tmp_path: Path, digests: Digests, number: int) -> None:
    path = tmp_path / "known"
    known = KnownChunks(path)
    known.chunks(RAWS[:1])
    known.save()
    text = path.read_text()
    at = text.index(CHUNKS[0].digest.hex())
    bodies = ["{}", '{"secret": "00", "chunks": {"a": "zz"}}', '{"secret": 1, "chunks": []}', "[" * 100_000]
    bodies += [json.dumps({"secret": "", "chunks": {"": CHUNKS[1].digest.hex()}})]
    damaged = [
        text[: at + 5] + ("1" if text[at + 5] == "0" else "0") + text[at + 6 :],
        text[:-9],
        "[]",
        *(json.dumps({"theta.known/v1": one, "sha256": digest(one)}) for one in bodies),
    ]
    path.write_text(damaged[number])
    assert KnownChunks(path).chunks(RAWS[:1]) == CHUNKS[:1]
    assert digests.count == 2


def test_files_that_are_added_again_are_mostly_known(
    repo: Repo, digests: Digests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adding, "_WORTH", 1)
    monkeypatch.setattr(Ahead, "_run", lambda _: None)  # the others find all
    repo.theta("track", "*.safetensors")
    arrays, counts = {f"w.{n}": normal(300, 400, seed=n) for n in range(5)}, []
    for number in range(4):
        arrays["w.0"] = normal(300, 400, seed=10 + number)
        for shard in (1, 2):
            shifted = {name: value * np.float32(shard) for name, value in arrays.items()}
            (repo.path / f"m{shard}.safetensors").write_bytes(model(shifted))
        digests.count = 0
        theta(repo, "add", ".")
        counts.append(digests.count)
    assert counts[1:] == [10, 2, 2], "the second version is the first that is noted"
    theta(repo, "commit", "-q", "-m", "m")
    repo.theta("fsck", "--read-data")
