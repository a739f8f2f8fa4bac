"""Whatever the specification does not allow ends in the independent reader's own error, in bounded memory."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from tests.independent import RefusedError, restore
from tests.independent.forging import Forge, Tensor, layer, raw_dense
from tests.independent.mutants import Mutants
from tests.independent.odb import Objects
from tests.support.environment import ROOT

HERE: Final = Path(__file__).parent
BUNDLE: Final = HERE / "repository-1.bundle"
ROOM: Final = 1500 * 2**20
"""Bytes of address space that the reader of hostile repositories gets."""


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    """An empty repository to forge objects in."""
    subprocess.run(["git", "init", "--quiet", "--bare", str(tmp_path / "forged")], check=True)
    return Forge(tmp_path / "forged")


def read(forge: Forge, commit: str) -> bytes:
    """Restore the forged checkpoint."""
    out = io.BytesIO()
    restore(forge.objects.parent, commit, "model.bin", out)
    return out.getvalue()


def plain(raw: bytes = b"01234567", **record: Any) -> Tensor:
    """Describe a tensor of bytes as u8."""
    shape = [len(raw)]
    layers = [layer("dense/1", None, "u8", shape)]
    return Tensor("u8", shape, [len(raw)], raw, layers, {"0.0000": raw_dense(raw, 1)}, record)


def test_a_forged_checkpoint_is_read(forge: Forge) -> None:
    assert read(forge, forge.checkpoint({"t": plain(), "u": plain(b"xyz")})) == b"01234567xyz"


MANIFESTS: Final[dict[str, Callable[[str], str]]] = {
    "another version": lambda text: text.replace("checkpoint 1", "checkpoint 2"),
    "a bad format": lambda text: text.replace("npy", "NPY"),
    "a store elsewhere": lambda text: text.replace("model.bin", "../x"),
    "a store that is a device": lambda text: text.replace("model.bin", "con.bin"),
    "no last newline": lambda text: text[:-1],
    "a blank line": lambda text: text + "\n",
    "another end": lambda text: text.replace("end t", "end u"),
    "a name twice": lambda text: text + "\n".join(text.split("\n")[4:7]) + "\n",
    "a name that is not escaped": lambda text: text.replace("t\n    ", "end\n    ").replace(
        "end t", "end end"
    ),
    "a name that need not be escaped": lambda text: text.replace("t\n    ", "\\u0074\n    ").replace(
        "end t", "end \\u0074"
    ),
    "an extent with a zero in front": lambda text: text.replace("[8]", "[08]"),
    "an extent that is too large": lambda text: text.replace("[8]", "[0, 1000000000000000000]"),
    "an unknown dtype": lambda text: text.replace("u8 [", "u9 ["),
    "another dtype": lambda text: text.replace("u8 [", "i8 ["),
    "another digest": lambda text: text.replace("sha256:", "sha256:0")[:-1],
    "a conflict": lambda text: text.replace("t\n    ", "<<<<<<< ours\nt\n    "),
}


@pytest.mark.parametrize("change", MANIFESTS.values(), ids=MANIFESTS.keys())
def test_a_bad_manifest_is_refused(forge: Forge, change: Callable[[str], str]) -> None:
    commit = forge.checkpoint({"t": plain()})
    text = _content(forge, f"{commit}:model.bin").decode()
    assert change(text) != text
    with pytest.raises(RefusedError):
        read(forge, forge.manifest(change(text).encode(), {}))


def test_lines_may_end_as_on_windows(forge: Forge) -> None:
    text = _content(forge, f"{forge.checkpoint({'t': plain()})}:model.bin")
    assert read(forge, forge.manifest(text.replace(b"\n", b"\r\n"), {})) == b"01234567"


def _content(forge: Forge, name: str) -> bytes:
    with Objects(forge.objects.parent) as objects:
        return objects.blob(name, 2**23)


DENSE: Final = layer("dense/1", None, "u8", [8])
DELTA: Final = layer("delta/1", 0, "u8", [8])
RECORDS: Final[dict[str, Mapping[str, Any]]] = {
    "another version": {"theta": 2},
    "a version that is true": {"theta": True},
    "another key": {"more": 1},
    "another dtype": {"dtype": "i8"},
    "a shape with a fraction": {"shape": [8.5]},
    "no layers": {"layers": []},
    "five layers": {"layers": [DENSE, *[DELTA] * 4]},
    "a base that is no lower layer": {"layers": [DENSE, layer("delta/1", 1, "u8", [8])]},
    "a delta without base": {"layers": [layer("delta/1", None, "u8", [8])]},
    "an unknown codec": {"layers": [layer("dense/9", None, "u8", [8])]},
    "another last layer": {"layers": [layer("dense/1", None, "u8", [2, 4])]},
    "a layer larger than any file": {"layers": [layer("dense/1", None, "u8", [2**45]), DENSE]},
    "a cast to the same dtype": {"layers": [DENSE, layer("cast/1", 0, "u8", [8])]},
    "other files": {"files": {}},
    "other chunks": {"chunks": [[7, "0" * 64]]},
    "a negative length": {"chunks": [[-8, "0" * 64]]},
    "another digest": {"chunks": [[8, "0" * 64]]},
}


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS.keys())
def test_a_bad_record_is_refused(forge: Forge, record: Mapping[str, Any]) -> None:
    with pytest.raises(RefusedError):
        read(forge, forge.checkpoint({"t": plain(**record)}))


TABLES: Final = {
    "another version": "theta skeleton 2\nextent 8 t\n",
    "no last newline": "theta skeleton 1\nextent 8 t",
    "another length": "theta skeleton 1\nextent 7 t\n",
    "a zero in front": "theta skeleton 1\nextent 08 t\n",
    "an unknown tensor": "theta skeleton 1\nextent 8 t\nextent 8 u\n",
    "no place": "theta skeleton 1\n",
    "literals that are missing": "theta skeleton 1\nliteral 3\nextent 8 t\n",
    "an unknown segment": "theta skeleton 1\nhole 3\nextent 8 t\n",
    "a file that is too large": f"theta skeleton 1\nextent 8 t\nliteral {2**44}\n",
    "an unknown operation": "theta skeleton 1\nextent 8 t\nderived 4 md5 little 0 0+8\n",
    "a field on itself": "theta skeleton 1\nextent 8 t\nderived 4 crc32 little 0 0+9\n",
    "a place outside": "theta skeleton 1\nextent 8 t\nderived 4 crc32 little 0 9+8\n",
    "a copy of another length": "theta skeleton 1\nextent 8 t\nderived 3 copy little 0 0+4\n",
    "half a word": "theta skeleton 1\nextent 8 t\nderived 20 fold-decimal little 0 0+6\n",
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
def test_a_bad_skeleton_is_refused(forge: Forge, table: str) -> None:
    with pytest.raises(RefusedError):
        read(forge, forge.checkpoint({"t": plain()}, {"table.0000": table.encode()}))


@pytest.mark.parametrize(("places", "is_read"), [(20, True), (21, False)])
def test_fields_may_read_four_times_the_file_and_sixteen_megabytes(
    forge: Forge, places: int, is_read: bool
) -> None:
    raw = bytes(2**20 - 4)
    line = "derived 4 crc32 little 0 " + ",".join([f"0+{len(raw)}"] * places)
    table = f"theta skeleton 1\nextent {len(raw)} t\n{line}\n".encode()
    commit = forge.checkpoint({"t": plain(raw)}, {"table.0000": table})
    if is_read:
        assert read(forge, commit) == raw + zlib.crc32(raw * places).to_bytes(4, "little")
    else:
        with pytest.raises(RefusedError, match="read too much"):
            read(forge, commit)


def test_listings_of_groups_are_proven(forge: Forge) -> None:
    commit = forge.checkpoint({"a.x": plain(b"1"), "a.y": plain(b"2"), "b": plain(b"3")})
    lines = _content(forge, f"{commit}:model.bin").decode().split("\n")
    head, listing = "\n".join(lines[:4]) + "\n", "\n".join(lines[4:])

    def grouped(prefix: str, count: int, text: str, proof: str = "") -> str:
        proof = proof or hashlib.sha256(text.encode()).hexdigest()
        tree = forge.files({"lines": text.encode()})
        return read(
            forge,
            forge.manifest(
                f"{head}{prefix}\n    group [{count}] sha256:{proof} {tree}\nend {prefix}\n".encode(), {}
            ),
        ).decode()

    assert grouped("\\u", 3, listing) == "123"
    for case in (("a.", 3, listing), ("\\u", 2, listing), ("\\u", 3, listing, "0" * 64)):
        with pytest.raises(RefusedError):
            grouped(*case)


READER: Final = """
import hashlib, resource, sys, tempfile
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
from tests.independent import RefusedError, restore
for line in sys.stdin:
    with tempfile.TemporaryFile() as out:
        try:
            restore(Path(sys.argv[2]), line.strip(), "model.bin", out)
            out.seek(0)
            print(hashlib.file_digest(out, "sha256").hexdigest(), flush=True)
        except RefusedError as error:
            print("refused:", str(error)[:60].encode(), flush=True)
"""


def read_confined(repository: Path, commits: list[str]) -> list[str]:
    """Restore commits in a process of little memory; each ends in a digest or in ``RefusedError``."""
    command = [sys.executable, "-c", READER, str(ROOM), str(repository)]
    text = "\n".join(commits)
    done = subprocess.run(command, input=text, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, (len(done.stdout.splitlines()), done.stderr[-2000:])
    return done.stdout.splitlines()


def _bombs() -> dict[str, tuple[Tensor, str]]:
    """Describe tensors that would take much memory, and a word of the message that each is refused with."""
    size = 2**26
    zeros = bytes(size)
    constant = b"\2\1\0\0\0"
    dense = {f"0.{number:04d}": b"\1" + constant + b"\0" for number in range(size // 2**22)}
    frame = b"\x28\xb5\x2f\xfd\xe0" + (8).to_bytes(8, "little")
    blocks = b"".join(((2**17 << 3) | 2).to_bytes(3, "little") + b"x" for _ in range(2**16))

    def layered(codec: str, dtype: str, width: int, shared: bytes) -> Tensor:
        shape = [size // width]
        layers = [layer("dense/1", None, dtype, shape), layer(codec, 0, dtype, shape)]
        return Tensor(
            dtype, shape, [2**22] * 16, zeros, layers, {**dense, "1.0000": b"\0", "1.shared": shared}
        )

    def one(stream: bytes) -> Tensor:
        return Tensor("u8", [8], [8], bytes(8), [DENSE], {"0.0000": stream})

    rans = b"\0\0\1" + b"\xff" * 4 + bytes(16)
    return {
        "a frame of many blocks": (one(b"\1\1" + _sized(frame + blocks)), "Zstandard"),
        "a frame that declares much": (
            one(b"\1\1" + _sized(frame[:5] + b"\xff" * 7 + b"\0")),
            "content size",
        ),
        "a stream that declares much": (one(b"\1\3" + _sized(rans)), "cut short"),
        "a factor for each word": (
            layered("scaled/1", "f8_e4m3", 1, b"\0\10" + constant * 8 + bytes(8)),
            "factors",
        ),
        "a run for each row": (
            layered("rows/1", "u8", 1, size.to_bytes(4, "little") + constant * 8 + bytes(8)),
            "runs",
        ),
    }


def _sized(payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "little") + payload


@pytest.mark.parametrize("name", _bombs().keys())
def test_a_bomb_is_refused_before_it_takes_memory(forge: Forge, name: str) -> None:
    tensor, word = _bombs()[name]
    (said,) = read_confined(forge.objects.parent, [forge.checkpoint({"t": tensor})])
    assert said.startswith("refused:") and word in said


def run_mutants(place: Path, seed: int, count: int) -> None:
    """Read damaged tensors of the golden repository."""
    repository = place / "clone.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", str(BUNDLE), str(repository)], check=True)
    wanted = json.loads(BUNDLE.with_suffix(".json").read_text())
    commits = [commit for commit, digests in wanted.items() if digests]
    with Mutants(repository, commits, "model.safetensors", seed) as mutants:
        made = list(mutants.make(count))
    said = read_confined(repository, [commit for commit, _ in made])
    assert len(said) == count
    refused = sum(line.startswith("refused:") for line in said)
    assert refused > 0.7 * count
    for (commit, sound), line in zip(made, said, strict=True):
        assert line.startswith("refused:") or not sound or line == sound, (commit, line)


def test_damaged_objects_are_refused(tmp_path: Path) -> None:
    run_mutants(tmp_path, 1, 250)


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(100, 110))
def test_many_damaged_objects_are_refused(tmp_path: Path, seed: int) -> None:
    """Read 20,000 damaged tensors: no other error on 27 Nov 2026, in 331 seconds of a busy machine."""
    run_mutants(tmp_path, seed, 2000)
