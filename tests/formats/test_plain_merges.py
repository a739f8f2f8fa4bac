"""For every format: branches that changed different tensors merge in plain git, and the file is right.

One branch holds what each format's own library wrote after it changed the small tensor; the other has new
values of the large one.  One ``git merge`` joins them all; CRCs and their like must be those of the result.

``python -m tests.formats.test_plain_merges FOLDER`` leaves the merged files in FOLDER, for
``data/check_merges.py`` to open them with the libraries.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest

from tests.formats.helpers import rebuild
from tests.formats.test_formats_page import Case, cases
from tests.support import Repo, environment
from theta.formats import Derived, Layout, scan
from theta.formats.derived import derive, prove
from theta.porcelain.stage import staging
from theta.porcelain.workspace.session import Session
from theta.store.files.file_source import FileSource

CASES = [case for case in cases() if case.path not in ("array.npy", "model-00002-of-00002.safetensors")]


def layout_of(path: Path) -> Layout:
    with FileSource(path) as source:
        return scan(source)


def large(layout: Layout) -> str:
    """The tensor that the libraries left alone; of an index, that of its checksum."""
    found = max(layout.tensors, key=lambda tensor: (tensor.length, tensor.name.startswith("big")))
    return found.name


def tensorflow_checksum(folder: Path) -> bytes:
    """Return the checksum that TensorFlow would write into the index for the large tensor's new values."""
    data = (folder / "variables.data-00000-of-00001").read_bytes()
    return derive(Derived("crc32c-masked", 0, 4, ()), [data[: 64 * 64 * 4][::-1]])


def commit(repo: Repo, message: str) -> None:
    session = Session.here(repo.path)
    with session.change():
        staging.add_files(session, [case.path for case in CASES])
    repo.theta("commit", "-m", message)


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Repo, dict[str, bytes]]:
    """The repository after the merge, and what each file must be."""
    return merge(Repo.create(tmp_path_factory.mktemp("merges") / "repo"))


def merge(repo: Repo) -> tuple[Repo, dict[str, bytes]]:
    """Make both branches and join them."""
    repo.theta("track", *{f"*{Path(case.path).suffix}" for case in CASES})
    for case in CASES:
        case.put(repo.path / case.path, 1)
    commit(repo, "base")
    repo.git("branch", "other")
    for case in CASES:
        case.put(repo.path / case.path, 2)
    commit(repo, "small")
    layouts = {case.path: layout_of(repo.path / case.path) for case in CASES}
    ours = {case.path: (repo.path / case.path).read_bytes() for case in CASES}
    repo.git("switch", "-q", "other")
    expected: dict[str, bytes] = {}
    for case in CASES:
        path = repo.path / case.path
        layout, data = layout_of(path), path.read_bytes()
        name = large(layout)
        tensor = next(tensor for tensor in layout.tensors if tensor.name == name)
        new = data[tensor.offset : tensor.end][::-1]
        if case.path.endswith(".index"):
            new = tensorflow_checksum(repo.path)
        path.write_bytes(rebuild(layout, data, {name: new}))
        expected[case.path] = rebuild(layouts[case.path], ours[case.path], {name: new})
    commit(repo, "big")
    repo.git("merge", "-q", "-m", "both", "-")
    return repo, expected


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.path)
def test_the_merge_is_the_file_with_both_changes(merged: tuple[Repo, dict[str, bytes]], case: Case) -> None:
    repo, expected = merged
    path = repo.path / case.path
    assert path.read_bytes() == expected[case.path]
    with FileSource(path) as source:
        layout = scan(source)
        assert prove(layout, source) == layout


def test_nothing_is_left_to_do(merged: tuple[Repo, dict[str, bytes]]) -> None:
    repo, _ = merged
    assert repo.git("status", "--porcelain", "-uno") == ""
    assert repo.git("rev-list", "--count", "--merges", "HEAD") == "1"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "home").mkdir()
        environment.enter(Path(folder) / "home")
        repo, _ = merge(Repo.create(Path(folder) / "repo"))
        for case in CASES:
            Path(sys.argv[1], case.path).write_bytes((repo.path / case.path).read_bytes())
