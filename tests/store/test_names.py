"""Tensor names as tree paths: injective, and safe to check out on any file system."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.store.test_manifest import ODD
from theta.store import closure
from theta.store.format import names
from theta.store.format.manifest import Line, Manifest
from theta.store.format.names import escape_line, tree_path, unescape_line

DOTS = st.text("a.%@/~ \\", max_size=12)
WORDS = st.lists(
    st.sampled_from(
        [
            "",
            ".",
            "..",
            "a",
            "A",
            ".git",
            "GIT~1",
            "git~2",
            "con",
            "CON.txt",
            "aux",
            "lpt1",
            "nul",
            "%41",
            "@tensor",
            "@self",
            "0.0000",
            "é",
            " ",
            "x" * 300,
            "é" * 150,
            "~",
            "%~",
            "\0",
            "\n",
            "a b ",
        ]
    ),
    max_size=8,
).map(".".join)
NAMES = st.one_of(DOTS, WORDS, st.sampled_from(ODD), st.text(st.characters(codec=None), max_size=12))


@given(NAMES, NAMES)
@example("%~", "")
@example("a.b", "a/b")
@example("a%2Fb", "a/b")
@example("..", ".")
@example("con", "%63on")
def test_different_names_have_different_places(one: str, other: str) -> None:
    assert (one == other) == (tree_path(one) == tree_path(other))
    assert (one == other) == (escape_line(one) == escape_line(other))


@given(NAMES)
def test_an_escaped_name_is_one_printable_line(name: str) -> None:
    line = escape_line(name)
    assert unescape_line(line) == name
    assert line.encode()
    assert line.splitlines() == [line]
    assert not line.startswith(
        (" ", "<", "=", ">", "|", "#", "end ", "theta ", "format ", "store ", "skeleton ")
    )
    assert line not in ("end", "theta", "format", "store", "skeleton")


@pytest.mark.parametrize(
    "line", ["", " a", "a ", "\\", "\\x", "\\u12", "\\u0041", "a\nb", "end x", "\\u00e9", "#"]
)
def test_what_escaping_never_makes_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="escaped"):
        unescape_line(line)


RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(\.|\s*$|:)", re.IGNORECASE)


@given(NAMES)
def test_every_part_can_be_a_file_anywhere(name: str) -> None:
    """POSIX, NTFS and HFS+ rules; 255 bytes is the limit of most file systems."""
    parts = tree_path(name).split("/")
    assert len("/".join(parts)) <= 1024
    for part in parts:
        assert 0 < len(part.encode()) <= 255
        assert part.isascii()
        assert part not in (".", "..")
        assert part.lower() != ".git"
        assert not part.lower().startswith("git~")
        assert not part.startswith("@")
        assert not part.endswith((".", " "))
        assert not RESERVED.match(part), part
        assert not set(part) & set('/\\:*?"<>|\x00\r\n\t\x7f'), part


@given(st.lists(NAMES, max_size=8, unique=True))
def test_all_places_fit_into_one_tree(names: list[str]) -> None:
    """A tensor that stands where others nest moves aside; no place is inside another tensor's tree."""
    lines = tuple(Line(name, "u8", (1,), f"{n:064x}", f"{n:040x}") for n, name in enumerate(names))
    places = closure.places(Manifest("safetensors", "m", "f" * 40, lines))
    assert sorted(places.values()) == sorted([*(line.tree for line in lines), "f" * 40])
    for place in places:
        assert not any(other.startswith(place + "/") for other in places), place


def test_git_accepts_every_odd_name(tmp_path: Path) -> None:
    """``git fsck --strict`` and a checkout with the rules of all systems switched on."""
    names = [
        name for name in [*ODD, "x" * 5000, ".".join("abc" * 40), "git~1", ".git ", ".g\u200cit"] if name
    ]
    files = "".join(
        f"100644 blob {'e69de29bb2d1d6434b8b29ae775ad8c2e48c5391'}\t{tree_path(n)}/@tensor\n" for n in names
    )

    def git(*args: str, text: str = "") -> str:
        command = ["git", "-c", "core.protectNTFS=true", "-c", "core.protectHFS=true", *args]
        return subprocess.run(
            command, cwd=tmp_path, input=text, capture_output=True, text=True, check=True
        ).stdout

    git("init", "--quiet")
    git("hash-object", "-w", "--stdin")
    git("update-index", "--add", "--index-info", text=files)
    commit = git("commit-tree", git("write-tree").strip(), "-m", "odd").strip()
    git("fsck", "--strict", "--full", commit)
    git("reset", "--hard", "--quiet", commit)
    assert git("status", "--porcelain") == ""
    assert len(list(tmp_path.rglob("@tensor"))) == len({tree_path(name) for name in names})


@given(st.lists(WORDS, min_size=1, max_size=12, unique=True))
@example(["a", "a.b", "a.b.c.d"])
def test_a_tensor_that_others_stand_below_has_a_folder_of_its_own(names: list[str]) -> None:
    lines = tuple(Line(name, "u8", (), "0" * 64, f"{n:040x}") for n, name in enumerate(sorted(set(names))))
    places = closure.places(Manifest("opaque", "m", "0" * 40, lines))
    paths = [tree_path(line.name) for line in lines]
    for line, path in zip(lines, paths, strict=True):
        is_folder = any(other.startswith(f"{path}/") for other in paths)
        assert places[f"{path}/@self" if is_folder else path] == line.tree


SPELLED = st.lists(
    st.sampled_from(
        [
            "con",
            "CON",
            "com1",
            "git",
            "git~1",
            "aux",
            "x",
            "-",
            "~",
            ".",
            " ",
            "%",
            "@",
            "/",
            "\u00e9",
            "n" * 60,
        ]
    ),
    min_size=1,
    max_size=40,
)


@given(SPELLED, st.integers(2, 12))
@example(["x" * 97, "con", "x" * 100], 2)
@example(["x" * 94, ".git~12", "x" * 100], 2)
@example(["x.git"], 2)
def test_every_store_has_a_name_that_readers_take(parts: list[str], number: int) -> None:
    store = names.store_of("".join(parts))
    assert names.is_store(store)
    assert names.is_store(names.numbered(store, number))
    assert names.numbered(store, number) != store


def test_what_is_the_same_in_many_names_is_escaped_once() -> None:
    names._part.cache_clear()
    for number in range(100):
        tree_path(f"model.layers.{number}.self_attn.q_proj.weight")
    assert names._part.cache_info().misses == 105
