"""Packs: git accepts what theta writes, theta reads what git writes, damage is never a crash."""

from __future__ import annotations

import errno
import os
import random
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import Repo
from theta import _fs
from theta.errors import CorruptError, DiskError, MissingObjectsError, ThetaError
from theta.git.backends.pack_index import PackIndex
from theta.git.object_format import BLOB, SHA1, TREE
from theta.git.object_values import _tree_rows, plain_files, tree_bytes
from theta.git.repository import Repository
from theta.store.odb import pack_file, packs
from theta.store.odb.objects import Objects
from theta.store.odb.packs import Pack, PackWriter

LIMIT = 10 << 20


@pytest.fixture
def objects(repo: Repo) -> Objects:
    return Objects(Repository.discover(repo.path))


def contents(count: int = 40) -> list[bytes]:
    dice = random.Random(7)
    sizes = [0, 1, 15, 16, 2047, 2048, 65534, 65535, 65536, 131070, 131071, 300_000]
    return [dice.randbytes(size) for size in sizes] + [
        dice.randbytes(dice.randrange(4000)) for _ in range(count)
    ]


def write(objects: Objects, blobs: list[bytes], *, text: bool = False) -> tuple[Path, list[str]]:
    pack = objects.writer()
    ids = [pack.blob(data, text=text) for data in blobs]
    path = pack.finish()
    assert path is not None
    objects.refresh()
    return path, ids


@pytest.mark.parametrize("text", [False, True])
def test_git_accepts_a_pack_and_reads_the_same(repo: Repo, objects: Objects, text: bool) -> None:
    blobs = contents()
    path, ids = write(objects, blobs, text=text)
    repo.git("verify-pack", "-v", str(path))
    repo.fsck()
    for data, oid in zip(blobs, ids, strict=True):
        assert oid == SHA1.object_id(BLOB, (data,), len(data)).hex()
        assert objects.text(oid) == objects.chunk(oid) == data
    command = ["git", "cat-file", "--batch"]
    done = subprocess.run(
        command, cwd=repo.path, input="\n".join(ids).encode(), capture_output=True, check=True
    )
    assert done.stdout == b"".join(
        f"{oid} blob {len(data)}\n".encode() + data + b"\n" for data, oid in zip(blobs, ids, strict=True)
    )
    index = path.with_suffix(".idx")
    ours = index.read_bytes()
    theirs = repo.path.parent / "theirs.idx"  # git 2.41 writes theirs.rev beside it
    subprocess.run(["git", "index-pack", "-o", str(theirs), str(path)], check=True, capture_output=True)
    assert theirs.read_bytes() == ours


def test_trees_are_in_the_order_of_git(repo: Repo, objects: Objects) -> None:
    pack = objects.writer()
    blob = pack.blob(b"x")
    inner = pack.tree([("f", 0o100644, blob)])
    entries = [("a", 0o040000, inner), ("a.b", 0o100644, blob), ("a0", 0o100644, blob), ("A", 0o100755, blob)]
    tree = pack.tree(entries)
    body = tree_bytes(reversed(entries))
    assert tree == SHA1.object_id(TREE, (body,), len(body)).hex()
    pack.finish()
    repo.git("fsck", "--strict", tree)
    assert repo.git("ls-tree", "--name-only", tree).split() == ["A", "a.b", "a", "a0"]


def test_nothing_is_there_before_the_end_and_nothing_is_left_of_a_failure(objects: Objects) -> None:
    before = set(objects.directory.iterdir())
    pack = objects.writer()
    oid = pack.blob(b"unfinished" * 100)
    assert not objects.has(oid)
    pack.abort()
    assert set(objects.directory.iterdir()) == before
    assert objects.writer().finish() is None


def test_what_is_written_in_a_block_is_there_after_it(objects: Objects) -> None:
    with objects.writing() as pack:
        oid = pack.blob(b"whole" * 100)
        assert not objects.has(oid)
    assert objects.chunk(oid) == b"whole" * 100
    assert pack.path is not None
    assert pack.finish() == pack.path


def test_a_block_that_raises_leaves_nothing(objects: Objects) -> None:
    before = set(objects.directory.iterdir())
    with pytest.raises(ZeroDivisionError), objects.writing() as pack:
        oid = pack.blob(b"unfinished" * 100)
        raise ZeroDivisionError
    assert set(objects.directory.iterdir()) == before
    assert not objects.has(oid)


def test_the_name_of_a_pack_comes_last(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers go by the index, so its name must appear when the pack is whole and durable."""
    seen: list[tuple[str, str]] = []
    monkeypatch.setattr(_fs, "on_step", lambda step, path: seen.append((step, Path(path).suffix)))
    write(objects, [b"x"])
    assert [name for step, name in seen if step == "rename"] == [".pack", ".idx"]
    renames = [number for number, (step, _) in enumerate(seen) if step == "rename"]
    assert all(seen[number - 1][0] == "fsync" for number in renames)


@pytest.mark.parametrize("at", [1, 2])
def test_a_pack_that_cannot_get_its_name_leaves_nothing(
    objects: Objects, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    named, calls = os.replace, []

    def fails(*paths: str | Path) -> None:
        calls.append(paths)
        if len(calls) == at:
            raise OSError(errno.EIO, "Input/output error")
        named(*paths)

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(DiskError), objects.writing() as pack:
        pack.blob(b"content" * 100)
    assert len(calls) == at
    assert not [*objects.directory.glob(f"{_fs.TEMPORARY}*")]


def test_the_same_object_is_written_once(objects: Objects) -> None:
    first, [oid] = write(objects, [b"once"])
    pack = objects.writer()
    assert pack.blob(b"once") == oid
    assert pack.blob(b"twice") == pack.blob(b"twice")
    second = pack.finish()
    assert second is not None
    assert second != first
    assert len(Pack(second.with_suffix(".idx"), SHA1).ids()) == 1


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("expected", [0, 1, 20, 52, 53])
def test_a_pack_of_a_known_number_ends_with_its_last_object(
    repo: Repo, objects: Objects, expected: int, twice: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is hashed while it is written; what follows is in another pack.  An object may come twice."""
    monkeypatch.setattr(pack_file, "_WORTH_WRITING", 1 << 16)
    blobs, before = contents(), set(objects.directory.glob("*.pack"))
    assert len(blobs) == 52
    pack = objects.writer(in_parts=True)
    pack.expect(expected)
    entries = [pack.blob_entry(data) for data in blobs]
    assert all(pack.add(entry) for entry in entries[:10])
    assert pack.size == pack_size(entries[:10]) + (20 + 12 if expected == 1 else 0)
    assert not (twice and pack.add(entries[0]))
    assert all(pack.add(entry) for entry in entries[10:])
    pack.blob(b"the last")
    path = pack.finish()
    assert path is not None
    found = sorted(set(objects.directory.glob("*.pack")) - before)
    sealed = expected == 1 or (expected in (20, 52) and not twice)
    assert len(found) == (2 if sealed else 1)
    assert len(Pack(path.with_suffix(".idx"), SHA1).ids()) == (expected if sealed else 53)
    for each in found:
        repo.git("verify-pack", str(each))
    objects.refresh()
    assert [objects.chunk(entry.oid) for entry in entries] == blobs


def pack_size(entries: list[packs.PackEntry]) -> int:
    """The bytes of a pack that has begun, and has these objects."""
    return 12 + sum(len(piece) for entry in entries for piece in entry.pieces)


def test_of_several_packs_none_is_there_before_the_end(objects: Objects) -> None:
    before = set(objects.directory.iterdir())
    with pytest.raises(ZeroDivisionError), objects.writer(in_parts=True) as pack:
        pack.expect(1)
        first, second = pack.blob(b"first" * 100), pack.blob(b"second" * 100)
        assert not objects.has(first)
        raise ZeroDivisionError
    assert set(objects.directory.iterdir()) == before
    assert not objects.has(second)


def test_offsets_beyond_two_gigabytes(objects: Objects, tmp_path: Path) -> None:
    """A sparse pack of 5 GB whose last object is real."""
    data = b"far away" * 9
    path, [oid] = write(objects, [data])
    entry = path.read_bytes()[12:-20]
    rows = [(bytes.fromhex(oid), 0, 5 << 30), (b"\x01" * 20, 0, 12), (b"\xfe" * 20, 0, (1 << 31) - 1)]
    rows += [(b"\x80" * 20, 0, 1 << 31)]
    far = tmp_path / "pack-far.pack"
    with far.open("wb") as file:
        file.seek(5 << 30)
        file.write(entry + b"\0" * 20)
    far.with_suffix(".idx").write_bytes(pack_file._index_bytes(sorted(rows), b"\0" * 20, SHA1))
    pack = Pack(far.with_suffix(".idx"), SHA1)
    assert pack.read(oid, LIMIT) == data
    assert pack._find(b"\xfe" * 20) == (1 << 31) - 1
    assert pack._find(b"\x80" * 20) == 1 << 31
    assert pack._find(b"\x02" * 20) is None
    with far.with_suffix(".idx").open("rb") as index:
        shown = subprocess.run(["git", "show-index"], stdin=index, capture_output=True, check=True)
    assert {int(line.split()[0]) for line in shown.stdout.splitlines()} == {row[2] for row in rows}


@pytest.mark.parametrize("size", [0, 1, 100, 5000])
def test_an_object_over_the_limit_is_refused(objects: Objects, size: int) -> None:
    _, [oid] = write(objects, [b"a" * size])
    assert objects.chunk(oid, size) == b"a" * size
    if size:
        with pytest.raises(CorruptError, match="limit"):
            objects.chunk(oid, size - 1)


def test_a_bomb_is_not_inflated(repo: Repo, objects: Objects) -> None:
    """A kilobyte of a packed zlib stream that stands for 100 MB, under a header that says 10 bytes."""
    import zlib

    path, [oid] = write(objects, [b"0123456789"])
    bomb = path.read_bytes()[:13] + zlib.compress(b"\0" * 100_000_000, 9)
    path.chmod(0o644)
    path.write_bytes(bomb + b"\0" * 20)
    with pytest.raises(ThetaError):
        Pack(path.with_suffix(".idx"), SHA1).read(oid, LIMIT)


@pytest.mark.parametrize("how", ["repack", "gc", "loose", "deltas", "index version 1", "midx", "bitmaps"])
def test_objects_are_found_however_git_keeps_them(repo: Repo, objects: Objects, how: str) -> None:
    blobs = [b"line\n" * n for n in range(1, 60)]
    _, ids = write(objects, blobs)
    tree = repo.git("mktree", stdin="".join(f"100644 blob {oid}\tf{n}\n" for n, oid in enumerate(ids)))
    repo.git("reset", "--soft", repo.git("commit-tree", tree, "-p", "HEAD", "-m", "all"))
    if how == "loose":
        [pack] = objects.directory.glob("*.pack")
        data = pack.read_bytes()
        for file in objects.directory.iterdir():
            file.unlink()
        subprocess.run(["git", "unpack-objects", "-q"], cwd=repo.path, input=data, check=True)
    elif how == "gc":
        repo.git("gc", "--quiet", "--prune=now")
    else:
        options = {
            "index version 1": ["-c", "pack.indexVersion=1"],
            "bitmaps": ["-c", "repack.writeBitmaps=true"],
        }
        repo.git(*options.get(how, []), "repack", "-adfq", "--depth=20", "--window=50")
        if how == "midx":
            repo.git("multi-pack-index", "write")
    fresh = Objects(Repository.discover(repo.path))
    assert [fresh.text(oid) for oid in ids] == blobs


def test_a_repack_in_the_middle_does_not_disturb_a_reader(repo: Repo, objects: Objects) -> None:
    blobs = contents(5)
    _, ids = write(objects, blobs)
    tree = repo.git("mktree", stdin="".join(f"100644 blob {oid}\tf{n}\n" for n, oid in enumerate(ids)))
    repo.git("reset", "--soft", repo.git("commit-tree", tree, "-p", "HEAD", "-m", "all"))
    reader = Objects(Repository.discover(repo.path))
    reader.refresh()
    missing = "0" * 39 + "1"
    with pytest.raises(MissingObjectsError):
        reader.text(missing)
    repo.git("gc", "--quiet", "--prune=now", "--aggressive")
    assert [reader.text(oid) for oid in ids] == blobs


def test_a_foreign_file_beside_the_packs_disturbs_nobody(objects: Objects) -> None:
    """Git warns of a broken index and goes on; so must theta, while the object is elsewhere."""
    _, [oid] = write(objects, [b"fine"])
    (objects.directory / "pack-0000.idx").write_bytes(b"")
    (objects.directory / "pack-1111.idx").write_bytes(b"junk" * 300)
    (objects.directory / "pack-2222.idx").symlink_to("nowhere")
    fresh = Objects(objects.repo)
    assert fresh.text(oid) == b"fine"


Damage = Callable[[bytes, random.Random], bytes]
DAMAGES: dict[str, Damage] = {
    "a flipped byte": lambda data, dice: flip(data, dice.randrange(len(data))),
    "cut short": lambda data, dice: data[: dice.randrange(len(data))],
    "a zeroed block": lambda data, dice: blank(data, dice.randrange(len(data))),
    "an inserted byte": lambda data, dice: data[: (at := dice.randrange(len(data)))] + b"\xaa" + data[at:],
}


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :]


def blank(data: bytes, at: int) -> bytes:
    return data[:at] + b"\0" * len(data[at : at + 512]) + data[at + 512 :]


@pytest.mark.parametrize("suffix", [".pack", ".idx"])
@pytest.mark.parametrize("how", DAMAGES)
def test_damage_is_named_or_harmless(objects: Objects, tmp_path: Path, how: str, suffix: str) -> None:
    blobs = contents(6)[2:]
    blobs = [data for data in blobs if len(data) < 3000]
    path, ids = write(objects, blobs)
    good = {end: path.with_suffix(end).read_bytes() for end in (".pack", ".idx")}
    dice = random.Random(f"{how}{suffix}")
    outcomes = {"exact": 0, "error": 0, "absent": 0, "wrong": 0}
    for number in range(400):
        place = tmp_path / f"pack-{number}.pack"
        for end, data in good.items():
            place.with_suffix(end).write_bytes(DAMAGES[how](data, dice) if end == suffix else data)
        for oid, data in zip(ids, blobs, strict=True):
            try:
                found = Pack(place.with_suffix(".idx"), SHA1).read(oid, LIMIT)
            except CorruptError:
                outcomes["error"] += 1
            else:
                # A stored block's bytes are guarded by their digests, one level up.
                key = "absent" if found is None else "exact" if found == data else "wrong"
                outcomes[key] += 1
        for end in good:
            os.unlink(place.with_suffix(end))
    assert outcomes["error"], outcomes
    # An index that was cut anywhere is refused as a whole; other damage hits some objects only.
    assert outcomes["exact"] or (how, suffix) == ("cut short", ".idx"), outcomes
    if suffix == ".pack":
        assert outcomes["wrong"] == 0, "a damaged object was read, but zlib's checksum tells"


@pytest.mark.parametrize("size", [(1 << 16) - 1, 1 << 16, 200_001])
def test_large_objects_are_read_however_they_are_deflated(objects: Objects, size: int) -> None:
    """Stored by theta, or compressed: from 64 KiB on the file is read, and stored blocks are put together."""
    data = random.Random(size).randbytes(size)
    for text in (False, True):
        path, ids = write(objects, [data], text=text)
        assert Pack(path.with_suffix(".idx"), SHA1).read(ids[0], LIMIT) == data
        path.unlink()
        path.with_suffix(".idx").unlink()


@pytest.mark.parametrize("cut", [65_534, 40_000])
def test_blocks_that_another_writer_cut_are_read(
    objects: Objects, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    """Stored blocks of any length: those of theta's own length go straight to their place."""
    data = random.Random(cut).randbytes(200_001)
    with monkeypatch.context() as patch:
        patch.setattr(packs, "_BLOCK", cut)
        path, ids = write(objects, [data])
    assert Pack(path.with_suffix(".idx"), SHA1).read(ids[0], LIMIT) == data


@pytest.mark.parametrize("at", [0, 2, 3, 5])
def test_a_stream_of_blocks_that_do_not_fit_is_damaged(objects: Objects, at: int) -> None:
    """The header of the stream; of its first block the kind, the length, and what proves that."""
    path, ids = write(objects, [bytes(range(256)) * 400])
    whole = bytearray(path.read_bytes())
    whole[whole.index(b"\x78\x01") + at] ^= 0x7E
    path.chmod(0o644)
    path.write_bytes(whole)
    with pytest.raises(CorruptError):
        Pack(path.with_suffix(".idx"), SHA1).read(ids[0], LIMIT)


def test_a_damaged_object_is_told_by_its_id(repo: Repo, objects: Objects) -> None:
    _, [one, other] = write(objects, [b"one" * 9, b"two" * 9])
    [path] = objects.directory.glob("*.idx")
    data = path.read_bytes()
    swapped = data.replace(bytes.fromhex(one), b"\0" * 20).replace(bytes.fromhex(other), bytes.fromhex(one))
    path.chmod(0o644)
    start = 8 + 1024
    table = sorted([swapped[start : start + 20], swapped[start + 20 : start + 40]])
    counts = [sum(entry[0] <= first for entry in table) for first in range(256)]
    path.write_bytes(swapped[:8] + struct.pack(">256I", *counts) + b"".join(table) + swapped[start + 40 :])
    fresh = Objects(Repository.discover(repo.path))
    with pytest.raises(ThetaError):
        assert fresh.text(one) != b"one" * 9


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=8))
def test_any_blobs(tmp_path_factory: pytest.TempPathFactory, blobs: list[bytes]) -> None:
    pack = PackWriter(tmp_path_factory.mktemp("pack"), lambda oid: False, SHA1)
    ids = [pack.blob(data, text=len(data) % 2 == 0) for data in blobs]
    path = pack.finish()
    assert path is not None
    reader = Pack(path.with_suffix(".idx"), SHA1)
    assert [reader.read(oid, LIMIT) for oid in ids] == blobs
    assert reader.ids() == sorted(set(ids))


def test_ids_are_found_alike_before_and_after_they_are_listed(objects: Objects) -> None:
    path, ids = write(objects, contents(400))
    index = PackIndex(path.with_suffix(".idx"), 20)
    raw = sorted(map(bytes.fromhex, ids))
    absent = [bytes([row[0]]) + row[1:-1] + bytes([row[-1] ^ 1]) for row in raw] + [bytes(20), b"\xff" * 20]
    assert index.find(raw[0]) == 0
    assert index._listed is None
    for _ in range(2):
        assert [index.find(row) for row in raw] == list(range(len(raw)))
        assert {index.find(row) for row in absent} == {None}
    assert index._listed is not None


def tree_of_pack(objects: Objects, rows: list[tuple[str, int, str]]) -> str:
    with objects.writing() as pack:
        tree: str = pack.tree(rows)
    return tree


def test_a_tree_of_plain_files_is_read_from_a_pack(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"@tensor": "00" * 20, "0.0000": "0a" * 20, "1.shared": "ff" * 20}
    tree = tree_of_pack(objects, [(name, 0o100644, oid) for name, oid in rows.items()])
    monkeypatch.setattr(type(objects.repo), "files_here", None)
    monkeypatch.setattr(type(objects.repo), "ids_here", None)
    assert objects.files(tree) == objects.ids_here(tree) == rows


@pytest.mark.parametrize("mode", [0o100755, 0o120000, 0o160000])
def test_a_tree_of_other_entries_is_refused_as_git_reads_it(objects: Objects, mode: int) -> None:
    tree = tree_of_pack(objects, [("0.0000", mode, "0a" * 20), ("@tensor", 0o100644, "00" * 20)])
    with pytest.raises(CorruptError, match="plain files"):
        objects.files(tree)
    assert objects.ids_here(tree) == {"0.0000": "0a" * 20, "@tensor": "00" * 20}


def test_a_tree_that_is_another_in_its_pack_is_not_believed(
    objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The id tells the content and the kind: a blob with the bytes of a tree has another one."""
    data = tree_bytes([("0.0000", 0o100644, "0a" * 20)])
    _, [blob] = write(objects, [data], text=True)
    assert objects.ids_here(blob) is None
    tree = tree_of_pack(objects, [("0.0000", 0o100644, "0b" * 20)])
    monkeypatch.setattr(Pack, "read", lambda *_: data)
    assert objects._plain_files(tree) is None
    assert objects.files(tree) == {"0.0000": "0b" * 20}


@given(st.lists(st.tuples(st.integers(0, 90), st.integers(0, 9), st.binary(max_size=9)), max_size=3))
def test_plain_files_are_those_of_the_full_reader(edits: list[tuple[int, int, bytes]]) -> None:
    data = tree_bytes([(name, 0o100644, "0a" * 20) for name in ("@tensor", "0.0000", "1.shared")])
    for at, length, piece in edits:
        data = data[:at] + piece + data[at + length :]
    found = plain_files(data, 20)
    if found is not None:
        rows = list(_tree_rows(data, "0" * 40))
        assert {mode for _, mode, _ in rows} <= {b"100644"}
        assert [(name, oid) for name, _, oid in rows] == list(found.items())
