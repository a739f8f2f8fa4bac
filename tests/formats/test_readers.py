"""Readers are imported when a file may be of their format, and no sign hides a file from its reader."""

from __future__ import annotations

import importlib
import io
import json
import random
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from safetensors.numpy import save_file

from theta.formats import READERS, FormatReader, Head, opaque
from theta.formats.layout import BytesSource

ASK = """
import json, sys
from pathlib import Path
from theta import formats
from theta.store.files.file_source import FileSource
with FileSource(Path(sys.argv[1])) as source:
    name = formats.scan(source).format
readers = {
    module for module in sys.modules
    if module.startswith("theta.formats.") and hasattr(sys.modules[module], "detect")
}
print(json.dumps([name, sorted(readers)]))
"""
HEADS = (
    b"PK\x03\x04", b"\x93NUMPY", b"GGUF", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", b"\x80\x04\x95",
    b"\x89HDF\r\n\x1a\n", b"\x83\xa3abc", b"\xde\0\x03\xa3abc", b"\x08\x07\x12\x02ab\x3a\x00",
    b"\x40\0\0\0\0\0\0\0{}", b"", b"# text\n",
)  # fmt: skip


def module_of(reader: FormatReader) -> ModuleType:
    return importlib.import_module("theta.formats." + reader._place.partition(":")[0])


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: str(reader.NAME))
def test_the_names_of_the_table_are_those_of_the_readers(reader: FormatReader) -> None:
    assert reader.NAME in (reader._reader.NAME, getattr(module_of(reader), "INDEX_NAME", None))


def imported(place: Path) -> tuple[str, set[str]]:
    done = subprocess.run([sys.executable, "-c", ASK, str(place)], capture_output=True, text=True, check=True)
    name, readers = json.loads(done.stdout)
    return name, {module.rpartition(".")[2] for module in readers} - {
        "readers",
        "opaque",
        "plugins",
        "tarred",
    }


def test_a_safetensors_file_imports_no_other_reader(tmp_path: Path) -> None:
    save_file({"a": np.arange(4)}, tmp_path / "m.safetensors")
    assert imported(tmp_path / "m.safetensors") == ("safetensors", {"safetensors"})


def test_a_file_of_no_format_imports_no_reader(tmp_path: Path) -> None:
    (tmp_path / "m.bin").write_bytes(b"\xff" * 2000)
    assert imported(tmp_path / "m.bin") == (opaque.NAME, set())


def test_a_file_that_a_reader_detects_has_its_sign() -> None:
    """Random files that begin as those of some format do: what ``detect`` takes, the sign lets through."""
    chance = random.Random(5)
    taken = set()
    for number in range(4000):
        head = bytearray(chance.choice(HEADS) + chance.randbytes(chance.choice((0, 4, 60, 600, 1100))))
        if head and number % 3 == 0:
            head[chance.randrange(min(len(head), 16))] = chance.randrange(256)
        source = BytesSource(bytes(head) + (bytes.fromhex("57fb808b247547db") if number % 7 == 0 else b""))
        for reader in READERS:
            if reader._reader.detect(source):
                taken.add(reader.NAME)
                assert reader.may_be(Head.of(source)), (reader.NAME, source.read(0, min(source.size, 16)))
    assert taken >= {"safetensors", "npy", "gguf", "pickle", "torch-legacy", "flax", "hdf5", "onnx"}


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_of_torch_has_its_sign(kind: int) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind) as archive:
        for name in ("storages", "tensors", "pickle"):
            archive.addfile(tarfile.TarInfo(name))
    source = BytesSource(file.getvalue())
    (reader,) = (reader for reader in READERS if reader.NAME == "torch-tar")
    assert reader._reader.detect(source)
    assert reader.may_be(Head.of(source))
