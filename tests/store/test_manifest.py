"""Manifests: printing and parsing are inverse, and whatever is not a manifest is refused."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from theta.dtypes import DTYPES
from theta.errors import ManifestError, NewerFormatError
from theta.git.object_format import SHA1, SHA256
from theta.store.format.manifest import (
    MAX_BYTES,
    Line,
    Manifest,
    has_conflict_markers,
    looks_like_manifest,
    parse,
)

HEX = st.sampled_from("0123456789abcdef")
OIDS = st.text(HEX, min_size=40, max_size=40)
ODD = [
    "",
    " ",
    ".",
    "..",
    ".git",
    "a/../b",
    "a.b",
    "a/b",
    "end",
    "end x",
    "theta checkpoint 1",
    "skeleton",
    "store s",
    "<<<<<<< ours",
    "=======",
    ">>>>>>> theirs",
    "||||||| base",
    "#",
    "\\",
    "\\u",
    "\\u0041",
    "a\\nb",
    "a\nb",
    "a\r\n",
    "\r",
    "\0",
    "\x1b[31m",
    "\x85",
    "\u2028",
    "\u2029",
    "\ud800",
    "\ufeff",
    "é",
    "é",
    "名前",
    "🙂",
    "x" * 1024,
    "    f32 [2] sha256:" + "0" * 64,
    "trailing ",
    " leading",
    "\t",
    "\x7f",
    "con",
    "@tensor",
    "%41",
]
NAMES = st.one_of(st.sampled_from(ODD), st.text(max_size=40), st.text(st.characters(codec=None), max_size=10))
SHAPES = st.lists(st.integers(0, 9), max_size=4).map(lambda shape: tuple(extent * 8 for extent in shape))


@st.composite
def lines(draw: st.DrawFn) -> Line:
    digest = draw(st.text(HEX, min_size=64, max_size=64))
    dtype, shape = draw(st.sampled_from(sorted(DTYPES))), draw(SHAPES)
    if not shape and DTYPES[dtype].bits % 8:
        shape = (8,)
    return Line(draw(NAMES), dtype, shape, digest, draw(OIDS))


MANIFESTS = st.builds(
    Manifest,
    st.sampled_from(["safetensors", "opaque", "torch-zip", "x1.2_3"]),
    st.sampled_from(["model.safetensors", "sub%2Fmodel", "e name", "a~2"]),
    OIDS,
    st.lists(lines(), max_size=6, unique_by=lambda line: line.name).map(tuple),
)
HEAD = f"theta checkpoint 1\nformat safetensors\nstore m\nskeleton {'0' * 40}\n"
VALUE = f"    f32 [2, 3] sha256:{'a' * 64} {'1' * 40}\n"
GOOD = f"{HEAD}w\n{VALUE}end w\n"


@given(MANIFESTS)
def test_parsing_is_the_inverse_of_printing(manifest: Manifest) -> None:
    assert parse(manifest.data) == manifest
    assert parse(manifest.data).data == manifest.data


@given(MANIFESTS, st.randoms(use_true_random=False))
def test_any_order_and_any_line_end_are_read(manifest: Manifest, dice: random.Random) -> None:
    shuffled = list(manifest.lines)
    dice.shuffle(shuffled)
    other = Manifest(manifest.format, manifest.store, manifest.skeleton, tuple(shuffled))
    assert parse(other.data.replace(b"\n", b"\r\n")).by_name == manifest.by_name


@given(MANIFESTS)
def test_a_manifest_is_three_lines_a_tensor(manifest: Manifest) -> None:
    """For every tool: no name can look like another line, a line break or a conflict marker."""
    text = manifest.data.decode()
    assert len(text.splitlines()) == len(text.split("\n")) - 1 == 4 + 3 * len(manifest.lines)
    assert not has_conflict_markers(manifest.data)
    assert all(line.isprintable() or not line.isascii() for line in text.split("\n"))
    assert not any(line != line.rstrip() for line in text.split("\n"))


def test_the_text_is_what_the_specification_says() -> None:
    line = Line("layers.0.w", "bf16", (4096, 64), "a" * 64, "1" * 40)
    manifest = Manifest("safetensors", "model.safetensors", "2" * 40, (line,))
    assert manifest.data.decode() == (
        "theta checkpoint 1\nformat safetensors\nstore model.safetensors\n"
        f"skeleton {'2' * 40}\nlayers.0.w\n    bf16 [4096, 64] sha256:{'a' * 64} {'1' * 40}\nend layers.0.w\n"
    )
    assert manifest.nbytes == 4096 * 64 * 2
    assert parse(GOOD.encode()).lines[0].shape == (2, 3)


BAD = {
    "empty": "",
    "another text": "hello\n",
    "only the magic": "theta checkpoint 1\n",
    "no last line feed": GOOD[:-1],
    "a name twice": GOOD + f"w\n{VALUE}end w\n",
    "a missing end": GOOD.replace("end w\n", ""),
    "a wrong end": GOOD.replace("end w", "end v"),
    "a missing value": f"{HEAD}w\nend w\n",
    "an empty line": GOOD + "\n",
    "a line too many": GOOD + "x\n",
    "no skeleton": GOOD.replace(f"skeleton {'0' * 40}\n", ""),
    "keys in another order": GOOD.replace("format safetensors\nstore m\n", "store m\nformat safetensors\n"),
    "a short skeleton": GOOD.replace("0" * 40, "0" * 39),
    "an upper-case id": GOOD.replace("1" * 40, "A" * 40),
    "a short digest": GOOD.replace("a" * 64, "a" * 63),
    "an unknown dtype": GOOD.replace("f32", "f33"),
    "a negative extent": GOOD.replace("2, 3", "2, -3"),
    "a leading zero": GOOD.replace("2, 3", "02, 3"),
    "no space in the shape": GOOD.replace("2, 3", "2,3"),
    "65 dimensions": GOOD.replace("2, 3", ", ".join(["1"] * 65)),
    "too large": GOOD.replace("2, 3", "999999999999999999, 999999999999999999"),
    "half a byte": GOOD.replace("f32 [2, 3]", "f4 [3]"),
    "a path for a store": GOOD.replace("store m", "store a/b"),
    "an upward store": GOOD.replace("store m", "store .."),
    "a hidden store": GOOD.replace("store m", "store .git"),
    "theta's own name for a store": GOOD.replace("store m", "store @m"),
    "a store that is a device": GOOD.replace("store m", "store a.CON.b"),
    "a store that is a short name of .git": GOOD.replace("store m", "store git~1"),
    "a store with an accent": GOOD.replace("store m", "store \u00e9"),
    "a store that ends in a dot": GOOD.replace("store m", "store m."),
    "an empty store": GOOD.replace("store m", "store "),
    "a store with a control": GOOD.replace("store m", "store a\x1bb"),
    "a format that is no word": GOOD.replace("format safetensors", "format a b"),
    "a name that is not escaped": GOOD.replace("\nw\n", "\na\tb\n").replace("end w", "end a\tb"),
    "a needless escape": GOOD.replace("\nw\n", "\n\\u0077\n").replace("end w", "end \\u0077"),
    "a broken escape": GOOD.replace("\nw\n", "\n\\x\n").replace("end w", "end \\x"),
    "a stray carriage return": GOOD.replace("\nw\n", "\nw\r\r\n").replace("end w", "end w\r"),
    "version 0.5": GOOD.replace("checkpoint 1", "checkpoint 0.5"),
    "version 0": GOOD.replace("checkpoint 1", "checkpoint 0"),
    "version 01": GOOD.replace("checkpoint 1", "checkpoint 01"),
    "version minus one": GOOD.replace("checkpoint 1", "checkpoint -1"),
    "another digit for the version": GOOD.replace("checkpoint 1", "checkpoint \u0661"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_not_well_formed_is_refused(what: str) -> None:
    with pytest.raises(ManifestError) as caught:
        parse(BAD[what].encode())
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_bytes_that_are_not_text_are_refused() -> None:
    with pytest.raises(ManifestError):
        parse(GOOD.encode().replace(b"end w", b"end \xff"))


@pytest.mark.parametrize("version", ["2", "10", "9" * 100, "9" * 5000], ids=len)
def test_a_newer_version_is_named(version: str) -> None:
    with pytest.raises(NewerFormatError) as caught:
        parse(GOOD.replace("checkpoint 1", f"checkpoint {version}").encode())
    assert "upgrade" in caught.value.hint
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("marker", ["<<<<<<< HEAD", "=======", ">>>>>>> other", "||||||| 1234567"])
def test_conflict_markers_are_told_from_other_damage(marker: str) -> None:
    text = GOOD.replace("w\n", f"{marker}\nw\n", 1).encode()
    assert has_conflict_markers(text)
    with pytest.raises(ManifestError, match="conflict"):
        parse(text)


def test_markers_elsewhere_are_not_a_conflict() -> None:
    assert not has_conflict_markers(b"<<<<<<< HEAD\n")
    assert not looks_like_manifest(b"theta checkpoin")


def test_a_huge_text_is_refused_at_once() -> None:
    with pytest.raises(ManifestError, match="limit"):
        parse(HEAD.encode() + b"x" * MAX_BYTES)


@given(st.binary(max_size=200), st.integers(0, len(GOOD)))
def test_damage_is_refused_or_read_never_a_crash(junk: bytes, at: int) -> None:
    data = GOOD.encode()
    try:
        found = parse(data[:at] + junk + data[at + len(junk) // 2 :])
    except (ManifestError, NewerFormatError):
        return
    assert parse(found.data) == found


def test_the_blob_id_is_that_of_git() -> None:
    assert SHA1.blob_id(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"


@pytest.mark.parametrize("digits", [(40, 40), (64, 64), (40, 64), (64, 40)])
def test_ids_are_of_one_hash(digits: tuple[int, int]) -> None:
    skeleton, tree = ("ab" * (count // 2) for count in digits)
    line = Line("a", "f32", (1,), "c" * 64, tree)
    manifest = Manifest("npy", "a.npy", skeleton, (line,))
    if len(set(digits)) > 1:
        with pytest.raises(ManifestError, match="one length"):
            parse(manifest.data)
    else:
        assert parse(manifest.data) == manifest
        assert manifest.oid == (SHA1 if digits[0] == 40 else SHA256).blob_id(manifest.data)
