"""The segment table: round trips through a repository, and refusals of what no writer makes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.store.test_manifest import NAMES
from tests.support import Repo
from theta.errors import CorruptError, MissingObjectsError, NewerFormatError, ThetaError
from theta.formats.layout import BytesSource
from theta.git.repository import Repository
from theta.store.files import file_scan
from theta.store.format import skeleton
from theta.store.format.manifest import Line, Manifest
from theta.store.format.skeleton import Extent, Literal, Skeleton
from theta.store.odb.objects import Objects
from theta.store.read import reassembly
from theta.store.read.reassembly import Restorer
from theta.store.write.snapshot import Snapshot


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    repo = Repo.create(tmp_path_factory.mktemp("skeleton") / "repo")
    return Objects(Repository.discover(repo.path))


def write(objects: Objects, made: Skeleton) -> str:
    pack = objects.writer()
    oid = made.write(pack)
    pack.finish()
    objects.refresh()
    return oid


def tree(objects: Objects, **files: bytes) -> str:
    """A skeleton tree of any content: ``table_0000=b"..."`` is the file ``table.0000``, cut if it is long."""
    long = files.pop("table_0000", b"")
    files |= {
        f"table_{n:04d}": long[at : at + (4 << 20)] for n, at in enumerate(range(0, len(long), 4 << 20))
    }
    pack = objects.writer()
    oid = pack.tree((name.replace("_", "."), 0o100644, pack.blob(data)) for name, data in files.items())
    pack.finish()
    objects.refresh()
    return oid


@st.composite
def skeletons(draw: st.DrawFn) -> Skeleton:
    literals = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=4))
    extents = draw(st.lists(st.tuples(st.integers(0, 10**15), NAMES), max_size=4, unique_by=lambda e: e[1]))
    kinds = draw(st.permutations([True] * len(literals) + [False] * len(extents)))
    left, right = iter(literals), iter(extents)
    segments = tuple(Literal(len(next(left))) if kind else Extent(*next(right)) for kind in kinds)
    return Skeleton(segments, b"".join(literals))


@given(skeletons())
def test_a_skeleton_is_read_as_it_was_written(objects: Objects, made: Skeleton) -> None:
    assert skeleton.read(objects, write(objects, made)) == made


def test_large_literals_are_cut_into_blobs_that_any_host_takes(objects: Objects) -> None:
    made = Skeleton((Literal(9 << 20),), bytes(range(256)) * (9 << 12))
    oid = write(objects, made)
    assert skeleton.read(objects, oid) == made
    assert sorted(objects.tree(oid)) == ["literal.0000", "literal.0001", "literal.0002", "table.0000"]


@given(skeletons(), st.binary(max_size=60))
def test_a_file_matches_only_with_all_its_literals(made: Skeleton, junk: bytes) -> None:
    if made.size > 10_000:
        return
    rest = iter(made.literal)
    parts = [
        bytes(next(rest) for _ in range(item.length)) if isinstance(item, Literal) else b"\0" * item.length
        for item in made.segments
    ]
    data = b"".join(parts)
    assert made.matches(BytesSource(data))
    assert not made.matches(BytesSource(data + b"x"))
    if made.literal:
        assert not replace(made, literal=bytes(byte ^ 1 for byte in made.literal)).matches(BytesSource(data))


HEAD = b"theta skeleton 1\n"


@pytest.mark.parametrize(
    "table",
    [
        b"",
        b"theta skeleton 1",
        b"theta skeleton x\n",
        b"theta skeleton 0\n",
        b"something else 1\n",
        HEAD + b"literal 3",
        HEAD + b"literal -3\n",
        HEAD + b"literal 3 x\n",
        HEAD + b"literal\n",
        HEAD + b"literal 99999999999999999999\n",
        HEAD + b"literal \xd9\xa3\n",
        HEAD + b"extent 4\n",
        HEAD + b"extent x w\n",
        HEAD + b"extent 4 end\n",
        HEAD + b"extent 4 a\tb\n",
        HEAD + b"execute 4 w\n",
        HEAD + b"\n",
        HEAD + b"\xff\n",
        HEAD + b"literal 4\n",
        HEAD + b"literal 2\n",
    ],
    ids=range(20),
)
def test_a_malformed_table_is_refused(objects: Objects, table: bytes) -> None:
    oid = tree(objects, table_0000=table, literal_0000=b"abc")
    with pytest.raises(CorruptError) as caught:
        skeleton.read(objects, oid)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("version", [b"2", b"9" * 30])
def test_a_newer_version_is_named(objects: Objects, version: bytes) -> None:
    with pytest.raises(NewerFormatError) as caught:
        skeleton.read(objects, tree(objects, table_0000=b"theta skeleton " + version + b"\n"))
    assert len(str(caught.value)) < 300


def test_a_skeleton_that_is_not_there(objects: Objects) -> None:
    with pytest.raises(MissingObjectsError):
        skeleton.read(objects, "1" * 40)


def stored(objects: Objects, data: bytes) -> Manifest:
    pack = objects.writer()
    source = BytesSource(data)
    found = file_scan.scan(source, None, None)
    manifest = Snapshot(objects, pack, []).store(source, found, "m", None).manifest
    pack.finish()
    objects.refresh()
    return manifest


HEADER = b'{"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}'
FILE = len(HEADER).to_bytes(8, "little") + HEADER + b"abcd"


@pytest.mark.parametrize(
    "segments",
    [
        (Extent(4, "other"),),
        (Extent(5, "w"),),
        (Extent(1 << 50, "w"),),
        (Literal(3), Extent(4, "w"), Extent(3, "w")),
    ],
    ids=["an unknown tensor", "another length", "a petabyte", "twice"],
)
def test_a_skeleton_that_contradicts_the_manifest_is_refused(
    objects: Objects, segments: tuple[skeleton.Segment, ...]
) -> None:
    manifest = stored(objects, FILE)
    literal = b"x" * sum(item.length for item in segments if isinstance(item, Literal))
    wrong = replace(manifest, skeleton=write(objects, Skeleton(segments, literal)))
    with pytest.raises(CorruptError):
        Restorer(objects, wrong).data()


def test_a_checkpoint_that_declares_too_much_is_refused_before_anything_is_read(objects: Objects) -> None:
    """A few lines can name one tensor a million times over."""
    lines = tuple(Line(f"t{n}", "u8", (1 << 42,), "a" * 64, "1" * 40) for n in range(5))
    segments = tuple(Extent(1 << 42, line.name) for line in lines)
    bomb = Manifest("safetensors", "m", write(objects, Skeleton(segments, b"")), lines)
    with pytest.raises(ThetaError) as caught:
        Restorer(objects, bomb).data()
    assert str(reassembly.MAX_TOTAL) in str(caught.value)


def test_a_tensor_that_no_extent_names_is_refused(objects: Objects) -> None:
    """The file would lack it, without a word."""
    manifest = stored(objects, FILE)
    more = replace(manifest, lines=(*manifest.lines, Line("x", "u8", (1,), "a" * 64, "1" * 40)))
    with pytest.raises(CorruptError, match="no place for 'x'"):
        Restorer(objects, more).data()
