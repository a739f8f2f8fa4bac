"""Containers other than safetensors: exact files, and merges that plain git makes come out right."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest

from tests.support import Repo, sha256
from theta.formats import scan
from theta.formats.layout import BytesSource

DATA = Path(__file__).parents[1] / "formats" / "data"
PAIRS = sorted(path.name for path in DATA.glob("*.1.*"))


@pytest.mark.parametrize("name", PAIRS)
def test_both_versions_come_back(repo: Repo, name: str) -> None:
    place = repo.path / "model.bin"
    repo.theta("track", "*.bin")
    digests = []
    for version in ("1", "2"):
        shutil.copyfile(DATA / name.replace(".1.", f".{version}."), place)
        digests.append(sha256(place))
        repo.theta("add", "model.bin")
        repo.theta("commit", "-m", version)
    for revision, digest in (("HEAD", digests[1]), ("HEAD~1", digests[0])):
        place.unlink()
        repo.theta("restore", "--source", revision, "model.bin")
        assert sha256(place) == digest


def test_plain_git_merges_two_halves_of_a_torch_file(repo: Repo) -> None:
    """The CRC-32s of a zip depend on values; they are derived, so they never conflict."""
    place = repo.path / "model.pt"
    one, two = ((DATA / f"checkpoint.{n}.pt").read_bytes() for n in "12")
    names = [t for t in scan(BytesSource(one)).tensors if one[t.offset : t.end] != two[t.offset : t.end]]
    assert len(names) > 2
    repo.theta("track", "*.pt")
    place.write_bytes(one)
    repo.theta("add", ".")
    repo.theta("commit", "-m", "base")
    _whole(repo, one, two, names[:1], "left")
    _whole(repo, one, two, names[-1:], "right")
    repo.git("merge", "left")
    merged = place.read_bytes()
    for tensor, wanted in ((names[0], two), (names[-1], two), (names[1], one)):
        assert merged[tensor.offset : tensor.end] == wanted[tensor.offset : tensor.end]
    with zipfile.ZipFile(place) as archive:
        assert archive.testzip() is None


def _whole(repo: Repo, one: bytes, two: bytes, tensors: list, branch: str) -> None:  # type: ignore[type-arg]
    """Commit on ``branch`` the file with ``tensors`` taken from ``two``, as torch would write it."""
    repo.git("checkout", "-q", "-B", branch, "main")
    data = bytearray(one)
    for tensor in tensors:
        data[tensor.offset : tensor.end] = two[tensor.offset : tensor.end]
    from theta.formats.derived import arguments, derive

    layout = scan(BytesSource(one))
    for field in layout.derived:
        value = derive(field, arguments(field, BytesSource(bytes(data))))
        data[field.offset : field.end] = value
    (repo.path / "model.pt").write_bytes(data)
    repo.theta("commit", "-am", branch)
