"""``.gitattributes`` of a tree, so that files of another store are tracked, and the way back."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Final

from theta.git.object_values import Tree
from theta.git.repository import ATTRIBUTES, Repository
from theta.porcelain.setup import attribute_lines
from theta.porcelain.setup.attribute_lines import AttributeLine
from theta.porcelain.setup.installing import STORE_ATTRIBUTES

_OWN: Final = frozenset(attribute_lines.ATTRIBUTES)
_FILTER: Final = "filter="


def tracking(
    repo: Repository, tree: Tree, paths: Iterable[str], left: Iterable[str], patterns: Iterable[str]
) -> dict[str, bytes]:
    """Return path -> new bytes of the files of attributes, with which theta tracks ``paths``.

    A glob on names that had another filter is kept as one glob where it matches none of ``left``, as is
    each of ``patterns``; other paths get a line of their own, in the file that is nearest to them.
    """
    by_file: dict[str, list[str]] = {ATTRIBUTES: []}
    for path in paths:
        by_file.setdefault(_nearest(tree, path), []).append(path)
    found = {}
    for place, below in by_file.items():
        folder = place.removesuffix(ATTRIBUTES)
        inner = [path.removeprefix(folder) for path in below]
        others = [path.removeprefix(folder) for path in left if path.startswith(folder)]
        lines = _tracked(_lines(repo, tree, place), inner, others, patterns)
        found[place] = _bytes(lines, own=place == ATTRIBUTES)
    return found


def restored(repo: Repository, tree: Tree, attributes: str) -> dict[str, bytes | None]:
    """Return path -> new bytes of the files of attributes that name theta, None for one that goes.

    A tracked pattern gets ``attributes`` instead; with none its line goes.
    """
    found: dict[str, bytes | None] = {}
    for path, _ in repo.walk_blobs(tree):
        if path == ATTRIBUTES or path.endswith(f"/{ATTRIBUTES}"):
            before = _lines(repo, tree, path)
            after = [new for line in before if (new := _untracked(line, attributes)) is not None]
            if [line.text for line in after] != [line.text for line in before] or path == ATTRIBUTES:
                found[path] = _bytes(after, own=False) or None
    return found


def _untracked(line: AttributeLine, attributes: str) -> AttributeLine | None:
    if not line.is_tracked:
        return line
    words = [word for word in line.attributes if word not in _OWN]
    words += attributes.split()
    return attribute_lines.parse(f"{line.pattern} {' '.join(words)}") if words else None


def _nearest(tree: Tree, path: str) -> str:
    """Return the file of attributes that has the last word on ``path``."""
    folder = path.rpartition("/")[0]
    while folder:
        if tree.get(f"{folder}/{ATTRIBUTES}") is not None:
            return f"{folder}/{ATTRIBUTES}"
        folder = folder.rpartition("/")[0]
    return ATTRIBUTES


def _lines(repo: Repository, tree: Tree, place: str) -> list[AttributeLine]:
    entry = tree.get(place)
    found = attribute_lines.of_file(repo.read_blob(entry.id)) if entry is not None else []
    return [line for line in found if line.text != STORE_ATTRIBUTES]


def _tracked(
    lines: list[AttributeLine], paths: list[str], left: list[str], patterns: Iterable[str]
) -> list[AttributeLine]:
    globs = [line.pattern for line in lines if _is_foreign(line) and _is_glob(line.pattern)]
    for pattern in dict.fromkeys([*globs, *(one for one in patterns if _is_glob(one))]):
        if _any(pattern, paths) and not _any(pattern, left):
            lines = attribute_lines.with_tracked(lines, pattern)
    for path in paths:
        if not any(_is_ours(line) and _matches(line.pattern, path) for line in lines):
            lines = attribute_lines.with_tracked(lines, "/" + attribute_lines.literal(path))
    return lines


def _is_foreign(line: AttributeLine) -> bool:
    return any(word.startswith(_FILTER) for word in line.attributes) and not _is_ours(line)


def _is_ours(line: AttributeLine) -> bool:
    return set(line.attributes) >= _OWN


def _is_glob(pattern: str) -> bool:
    """Return whether ``pattern`` is one on names, which fnmatch reads as git does."""
    return "/" not in pattern and "\\" not in pattern


def _matches(pattern: str, path: str) -> bool:
    literal = "/" + attribute_lines.literal(path)
    return pattern == literal or (_is_glob(pattern) and fnmatchcase(path.rpartition("/")[2], pattern))


def _any(pattern: str, paths: Iterable[str]) -> bool:
    return any(_matches(pattern, path) for path in paths)


def _bytes(lines: list[AttributeLine], *, own: bool) -> bytes:
    rows = [line.text for line in lines] + ([STORE_ATTRIBUTES] if own else [])
    return "".join(row + "\n" for row in rows).encode("utf-8", "surrogateescape")
