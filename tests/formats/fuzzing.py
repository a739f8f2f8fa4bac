"""Mutated files in a process of its own: limited memory, and a hook that sees whatever would be run.

``python -m tests.formats.fuzzing FORMAT SEED COUNT`` checks COUNT files and prints how many were read as
tensors.  It fails where anything is imported, executed, opened or started, where memory beyond the file's
size and 64 MiB is asked for, and where a file is neither read soundly nor kept as bytes.
"""

from __future__ import annotations

import io
import random
import resource
import sys
import tarfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from tests.formats.helpers import mutate, rebuild
from theta.formats import READERS, scan_or_opaque
from theta.formats.derived import prove
from theta.formats.layout import BytesSource
from theta.formats.pickle_files.pickle_scan import scan_pickles

DATA: Final = Path(__file__).parent / "data"
ALLOWED: Final = 64 * 2**20
_FORBIDDEN: Final = (
    "compile", "ctypes.", "exec", "ftplib.", "http.", "import", "marshal.", "mmap.", "open", "os.", "pickle.",
    "pty.", "shutil.", "socket.", "sqlite3.", "subprocess.", "tempfile.", "urllib.", "webbrowser.",
)  # fmt: skip
_HEADER: Final = b'{"__metadata__":{"a":"b"},"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},'
_SAFETENSORS: Final = _HEADER + b'"e":{"dtype":"BF16","shape":[0,4],"data_offsets":[24,24]}}'


def _files(*names: str) -> list[bytes]:
    return [(DATA / name).read_bytes() for name in names]


def _npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _safetensors() -> list[bytes]:
    text = _SAFETENSORS.ljust(-(-len(_SAFETENSORS) // 8) * 8)
    return [len(text).to_bytes(8, "little") + text + bytes(24)]


def _torch() -> list[bytes]:
    return _files(
        "tensor.1.pt", "checkpoint.1.pt", "values.1.pt", "nocrc.1.pt", "distributed.1.pt", "legacy.1.pt"
    )


def _numpy() -> list[bytes]:
    grid = np.arange(6.0).reshape(2, 3)
    plain = [_npy(grid.astype(kind)) for kind in ("<f4", ">i2", "bool")] + [_npy(np.asfortranarray(grid))]
    return [*plain, _npz(a=grid, b=np.zeros((0, 2), np.int8)), _npz(x=np.array(["a", "bc"]))]


def _others() -> list[bytes]:
    names = ["latest.1.h5", "model.1.onnx", "model.1.joblib", "story/1.variables.index"]
    return [*_files(*names), (DATA / "story" / "1.model.msgpack").read_bytes()[-400:], _tar()]


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in ("storages", "tensors", "pickle"):
            data = b"\x80\x02K\x00.\x80\x02]." if name == "storages" else b"\x80\x02K\x00."
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()[:4608]


Seeds = Callable[[], list[bytes]]
_ZIP: Final = [b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"]
_JSON: Final = rb'" { } [ ] , 0 -1 1e3 18446744073709551616 "F4" "U8" \u0061'.split()
_OPCODES: Final = [b"(", b"t", b"R", b"\x85", b"h\x00", b"q\x00", b"}", b"]", b"b", b".", b"\x8a\x08", b"Q"]
_WORDS: Final = [b"general.alignment", b"\x09\0\0\0", b"\x08\0\0\0", b"\xff" * 8, b"\0" * 8]
_HEADERS: Final = [b"<f8", b"|O", b"True", b"(1,)", b"()", b"-1", b"'", b", "]
FORMATS: Final[dict[str, tuple[Seeds, list[bytes]]]] = {
    "safetensors": (_safetensors, _JSON),
    "torch": (_torch, [*_OPCODES, *_ZIP, b"cos\nsystem\n"]),
    "gguf": (lambda: _files("model.1.gguf"), _WORDS),
    "numpy": (_numpy, [*_HEADERS, *_ZIP]),
    "others": (
        _others,
        [b"\xff" * 8, b"\0" * 8, b"OHDR", b"TREE", b"SNOD", b"\x82", b"\xc8", b"\x0a", b"R."],
    ),
}


@cache
def seeds(name: str) -> list[bytes]:
    """Return the sound files of the format ``name``."""
    return FORMATS[name][0]()


def check(data: bytes) -> bool:
    """Return whether ``data`` is read as tensors; in any case it must come back byte for byte."""
    source = BytesSource(data)
    layout, reason = scan_or_opaque(source)
    assert "\n" not in reason and len(reason) < 400, reason
    layout.validate()
    assert rebuild(prove(layout, source), data, {}) == data
    scan_pickles(source)
    return layout.format != "opaque"


def run(name: str, seed: int, count: int) -> int:
    """Check ``count`` mutated files of the format ``name``; the number that were read as tensors."""
    files, tokens = seeds(name), FORMATS[name][1]
    rng = random.Random(f"{name} {seed}")
    return sum(check(mutate(rng.choice(files), rng, tokens)) for _ in range(count))


def guard() -> list[str]:
    """From now on: no more memory than is allowed, and all that would be run is written down."""
    for reader in READERS:  # else one is imported, which opens files, when a file has its sign
        reader.load()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ALLOWED
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    seen: list[str] = []

    def hook(event: str, args: tuple[object, ...]) -> None:
        if event.startswith(_FORBIDDEN):
            seen.append(f"{event} {args!r:.200}")

    sys.addaudithook(hook)
    return seen


def main(name: str, seed: str, count: str) -> None:
    """One campaign, as the command line asks for it."""
    for data in seeds(name):  # what is imported lazily is imported now
        check(data)
    run(name, -1, 300)
    seen = guard()
    read = run(name, int(seed), int(count))
    if seen:
        sys.exit(f"{len(seen)} events, the first: {seen[0]}")
    sys.stdout.write(f"{read}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
