"""``formats.md`` is made here, by committing what each format's own library wrote and changed.

After a change, ``python -m tests.formats.test_formats_page`` writes the page anew.
"""

from __future__ import annotations

import io
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.support import Repo, environment
from theta import formats
from theta.formats import sharded, writers
from theta.formats.layout import BytesSource
from theta.porcelain.stage import staging
from theta.porcelain.stage.staging import Added
from theta.porcelain.workspace.session import Session

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "theta" / "docs" / "formats.md"
STORY = Path(__file__).parent / "data" / "story"
BIG = np.random.default_rng(2).standard_normal((64, 64)).astype(np.float32)
SMALL = np.arange(16, dtype=np.float32)

HEAD = """# Checkpoint formats

theta finds out by content, not by name, what a file is. It reads where the tensors lie and never decodes or
unpickles anything: no framework is imported, nothing in a file is run. Whatever a reader finds, the file that
is restored is byte for byte the file that was added; a file that no reader understands is kept in
content-defined chunks.

Each line of this table is a file that the library itself wrote; then the library changed one small tensor of
it and wrote it again. Both versions were committed and restored by the test that makes this page
(`tests/formats/test_formats_page.py`). "Stored again" is what the second commit stored of the tensors.

| file | made by | format | tensors | stored again | `theta convert` writes it |
|---|---|---|---|---|---|
"""

MIDDLE = """
`theta convert` takes the tensors of any of these, and writes files of names and values: what else is in a
pickle or a model stays behind.

A tensor here is an extent of the file: torch's storages, of which a tensor may be a transposed or sliced
view, are one each, so are quantised blocks, and so is each chunk of a chunked HDF5 dataset. Fields that
follow from the tensors, such as the CRC-32s in zip files and the CRC-32Cs of TensorFlow, are not stored but
computed, so that branches that changed different tensors merge in any git and the result opens without
complaint.

## Models in several files

Files named `model-00001-of-00003.safetensors` (or `.bin`, or `.gguf`) are one model: `theta diff`, `status`,
`log --stat` and `show` tell of its tensors, and a tensor that moved to another file is no change. Cutting a
model anew, with `theta convert -o model.safetensors --max-shard-size 5GB` or with the library, stores nothing
but the new files' headers.

Some files do not tell what is in them, but a file beside them does: TensorFlow's `.data` files are read by
the `.index` (track both), ONNX's external data (`X.onnx.data`, `X.onnx_data`) by `X.onnx`, and the parts of
torch's distributed checkpoints get their names from `.metadata`. Alone, the first two are kept as bytes.

## What is kept as bytes

| file | why |
|---|---|
"""

TAIL = """
Such files cost what changed of them, at about 1 MiB steps, and do not merge by tensor.

## Pickles

torch's files, joblib's and scikit-learn's are pickles: whoever loads them runs what they say. theta reads
them with a machine of its own that follows the opcodes and imports nothing. `theta scan` lists what a file, a
folder or a revision would call and ends with 1 where that is dangerous; `theta add` and `theta clone` warn.

## Other formats

A package can teach theta a format: a class with `NAME`, `detect(source)` and `scan(source)`, named by an
entry point of the group `theta.formats`. `tests/plugins/format_example` is a complete one. A plug-in is asked
after theta's own readers; what it says is checked like theirs, and restoring never needs it.
"""


@dataclass(frozen=True)
class Case:
    """A file of the table: its name in the repository, who made it, and how to put a version there."""

    path: str
    library: str
    put: Callable[[Path, int], None]


def _recorded(name: str) -> Callable[[Path, int], None]:
    def put(path: Path, version: int) -> None:
        path.write_bytes((STORY / f"{version}.{name}").read_bytes())

    return put


def _with_sibling(name: str, beside: str, called: str) -> Callable[[Path, int], None]:
    """The file ``name``, and beside it the one that tells what is in it."""

    def put(path: Path, version: int) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((STORY / f"{version}.{name}").read_bytes())
        path.with_name(called).write_bytes((STORY / f"{version}.{beside}").read_bytes())

    return put


def _safetensors(path: Path, version: int) -> None:
    if version == 1:
        save_file({"big": BIG, "small": SMALL}, path)
    else:
        tensors = load_file(path)
        save_file(tensors | {"small": tensors["small"] * 3}, path)


def _npz(path: Path, version: int) -> None:
    np.savez(path, big=BIG, small=SMALL * (1 if version == 1 else 3))


def _npy(path: Path, version: int) -> None:
    array = BIG if version == 1 else np.load(path)
    if version == 2:
        array[0, :16] *= 3
    np.save(path, array)


def _shards(path: Path, version: int) -> None:
    first = path.name.startswith("model-00001")
    save_file({"big": BIG} if first else {"small": SMALL * (1 if version == 1 else 3)}, path)


def cases() -> list[Case]:
    """All files, in the order of the table."""
    found = [
        Case("model.safetensors", "safetensors", _safetensors),
        *(Case(name, "safetensors", _shards) for name in sharded.shard_names(2)),
        Case("model.npz", "numpy", _npz),
        Case("array.npy", "numpy", _npy),
    ]
    for line in (STORY / "libraries.txt").read_text().splitlines():
        name, library = line.split(" ", 1)
        if name == "variables":
            for path in ("variables.index", "variables.data-00000-of-00001"):
                found.append(Case(path, library, _recorded(path)))
        elif name == "dist.distcp":
            found.append(
                Case("dist/__0_0.distcp", library, _with_sibling(name, "dist.metadata", ".metadata"))
            )
        elif name == "external.onnx.data":
            found.append(Case(name, library, _with_sibling(name, "external.onnx", "external.onnx")))
        elif name != "same.pt":
            found.append(Case(name, library, _recorded(name)))
    return found


def _npz_deflated() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, big=BIG)
    return buffer.getvalue()


OPAQUE = {
    "`numpy.savez_compressed`": (_npz_deflated, "deflated; the same stream could not be written again"),
    "joblib with `compress=`": (lambda: zlib.compress(BIG.tobytes()), "compressed"),
    "pickles of protocols 0 to 2": (
        lambda: b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x00.",
        "arrays are text in them",
    ),
    "HDF5 whose data is mostly compressed": (
        lambda: (STORY / "1.plain.h5").read_bytes()[:2048] + bytes(2**21),
        "filtered chunks could not be written again",
    ),
    "anything else": (lambda: b"#!/bin/sh\n", "no reader knows it"),
}


@dataclass(frozen=True)
class Told:
    """The objects that the second commit of a case stored."""

    case: Case
    added: Added


def tell(repo: Repo) -> list[Told]:
    """Commit both versions of all cases, restore both, compare every byte."""
    listed = cases()
    repo.theta("track", *{f"*{Path(case.path).suffix}" for case in listed})
    versions: list[dict[str, bytes]] = []
    added: dict[str, Added] = {}
    for version in (1, 2):
        for case in listed:
            case.put(repo.path / case.path, version)
        versions.append({case.path: (repo.path / case.path).read_bytes() for case in listed})
        session = Session.here(repo.path)
        with session.change():
            found = staging.add_files(session, [case.path for case in listed])
        added = {item.path: item for item in found}
        repo.theta("commit", "-m", f"version {version}")
    for back in (1, 0):
        repo.theta("restore", "--source", f"HEAD~{back}", *(case.path for case in listed))
        for case in listed:
            assert (repo.path / case.path).read_bytes() == versions[1 - back][case.path], case.path
    return [Told(case, added[case.path]) for case in listed]


def page(told: list[Told]) -> str:
    """Return the page as it must be."""
    text = HEAD
    for item in told:
        manifest = item.added.manifest
        new = f"{len(item.added.new)} of {len(manifest.lines)}"
        writes = "yes" if manifest.format in writers.WRITERS else "no"
        text += f"| `{item.case.path}` | {item.case.library} | {manifest.format} | {len(manifest.lines)}"
        text += f" | {new if item.added.new else 'nothing'} | {writes} |\n"
    text += MIDDLE
    for name, (_, reason) in OPAQUE.items():
        text += f"| {name} | {reason} |\n"
    return text + TAIL


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[Told]:
    return tell(Repo.create(tmp_path_factory.mktemp("page") / "repo"))


def test_the_page_is_what_happens(told: list[Told]) -> None:
    assert PAGE.read_text() == page(told)


def test_every_file_is_read_as_tensors(told: list[Told]) -> None:
    assert {item.case.path: item.added.note for item in told if item.added.note} == {}
    readers = {item.added.manifest.format for item in told}
    assert "opaque" not in readers
    assert {reader.NAME for reader in formats.READERS} - readers == {"torch-tar"}  # nobody writes it any more


def test_the_second_commit_stores_about_the_change(told: list[Told]) -> None:
    """64 bytes changed beside 16 kB: besides them only a manifest and sometimes a skeleton are new."""
    for item in told:
        assert item.added.stored < 2_048, item.case.path
        assert item.added.new or item.added.stored == 0


def test_what_is_kept_as_bytes() -> None:
    for name, (make, _) in OPAQUE.items():
        layout, _ = formats.scan_or_opaque(BytesSource(make()))
        assert layout.format == "opaque", name


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "home").mkdir()
        environment.enter(Path(folder) / "home")
        PAGE.write_text(page(tell(Repo.create(Path(folder) / "repo"))))
