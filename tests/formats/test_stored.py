"""Committed checkpoints read in place: every byte is that of the file, whatever is asked for first."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.formats.test_formats_page import Case, cases
from tests.support import Repo
from theta.porcelain.stage import staging
from theta.porcelain.workspace.session import Session
from theta.store.format.manifest import Manifest
from theta.store.format.skeleton import Field, Literal, Skeleton
from theta.store.read.random_access import StoredSource
from theta.store.read.reassembly import Restorer

CASES = [case for case in cases() if case.path not in ("dist/__0_0.distcp", "external.onnx.data")]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    repo = Repo.create(tmp_path_factory.mktemp("stored") / "repo")
    repo.theta("track", *{f"*{Path(case.path).suffix}" for case in CASES})
    for case in CASES:
        case.put(repo.path / case.path, 1)
    session = Session.here(repo.path)
    with session.change():
        staging.add_files(session, [case.path for case in CASES])
    return session


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.path)
def test_any_part_is_that_of_the_file(session: Session, case: Case) -> None:
    data = (session.repo.worktree / case.path).read_bytes()
    manifest = session.manifest(session.index[case.path].oid)
    source = StoredSource(session.objects, manifest)
    assert source.size == len(data)
    rng = random.Random(case.path)
    for _ in range(50):
        start = rng.randrange(len(data) + 1)
        length = rng.randrange(min(len(data) - start, rng.choice((9, 5000, len(data)))) + 1)
        assert source.read(start, length) == data[start : start + length]
    assert source.read(0, len(data)) == data
    zeros = StoredSource(session.objects, manifest, exact=False).read(0, len(data))
    assert {tensor.name for tensor in source.layout.tensors} == set(manifest.by_name)
    assert len(zeros) == len(data)
    for tensor in source.layout.tensors:
        assert zeros[tensor.offset : tensor.end] == data[tensor.offset : tensor.end]


def test_a_long_chain_of_fields_is_no_deep_recursion(session: Session) -> None:
    """Each copies the one before it; a hostile skeleton may have as many as fit into its table."""
    count = 5_000
    fields = [Field(4, "copy", "little", rank, ((4 * rank, 4),)) for rank in range(count)]
    with session.objects.writing() as pack:
        skeleton = Skeleton((Literal(4), *fields), b"abcd").write(pack)
    manifest = Manifest("torch", "x", skeleton, ())
    expected = b"abcd" * (count + 1)
    assert Restorer(session.objects, manifest).data() == expected
    source = StoredSource(session.objects, manifest)
    assert source.read(4 * count, 4) == b"abcd"
    assert source.read(0, source.size) == expected
