"""The manifest: the text that stands in a commit where the checkpoint is.

Three lines a tensor, so that any Git merges changes of different tensors as text; digest and
tree on one line, so that two changes of one tensor always conflict.  A manifest that would grow
too large names groups of tensors instead (``theta.store.format.listings``).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass, replace
from functools import lru_cache
from operator import attrgetter
from typing import Final, TypeVar

from theta.dtypes import DTYPES
from theta.errors import ManifestError, NewerFormatError
from theta.git.object_format import ID, format_of, is_id
from theta.lazy import lazy
from theta.store.format.names import escape_line, is_store, unescape_line

E = TypeVar("E")

VERSION: Final = 1
MAGIC: Final = b"theta checkpoint "
MAX_BYTES: Final = 8 << 20
MAX_LISTED: Final = 128 << 20
"""Bytes of all listings of a manifest together."""

_VALUE: Final = re.compile(rf"    ([a-z0-9_]+) \[([0-9, ]*)\] sha256:([0-9a-f]{{64}}) ({ID})")
_GROUP: Final = re.compile(rf"    group \[([1-9][0-9]{{0,8}})\] sha256:([0-9a-f]{{64}}) ({ID})")
_SHAPE: Final = re.compile(r"((0|[1-9][0-9]{0,17})(, (0|[1-9][0-9]{0,17})){0,63})?")
_MARKERS: Final = ("<<<<<<<", "=======", ">>>>>>>", "|||||||")


@dataclass(frozen=True)
class Line:
    """One tensor: its type, shape, the digest of its value, and the id of its tree."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    digest: str
    tree: str

    @lazy
    def nbytes(self) -> int:
        """Bytes of the value in the checkpoint."""
        return DTYPES[self.dtype].nbytes(self.shape)

    def same_value(self, other: Line) -> bool:
        """Return whether both hold the same value; how it is encoded does not matter."""
        return self.digest == other.digest

    def text(self) -> str:
        """Return the three lines."""
        name = escape_line(self.name)
        shape = ", ".join(map(str, self.shape))
        return f"{name}\n    {self.dtype} [{shape}] sha256:{self.digest} {self.tree}\nend {name}\n"


@dataclass(frozen=True)
class NameGroup:
    """Tensors whose names begin with ``prefix``, listed in a blob of their own in ``tree``."""

    prefix: str
    count: int
    digest: str
    tree: str

    def text(self) -> str:
        """Return the three lines."""
        name = escape_line(self.prefix)
        return f"{name}\n    group [{self.count}] sha256:{self.digest} {self.tree}\nend {name}\n"


Listings = Callable[[tuple[NameGroup, ...]], Iterable[bytes]]
"""Reads the lines of groups."""


@dataclass(frozen=True)
class Manifest:
    """A checkpoint in a commit: its container, its store below ``.theta/``, its tensors.

    ``lines`` are all tensors; ``groups``, if there are any, stand for them in the text.
    """

    format: str
    store: str
    skeleton: str
    lines: tuple[Line, ...]
    groups: tuple[NameGroup, ...] = ()

    @lazy
    def by_name(self) -> dict[str, Line]:
        """Name -> line."""
        return {line.name: line for line in self.lines}

    @lazy
    def by_digest(self) -> dict[str, Line]:
        """Digest of the value -> a line that has it."""
        return {line.digest: line for line in self.lines}

    @lazy
    def data(self) -> bytes:
        """The bytes of the manifest."""
        head = f"theta checkpoint {VERSION}\nformat {self.format}\nstore {self.store}\n"
        head += f"skeleton {self.skeleton}\n"
        return (head + "".join(entry.text() for entry in self.groups or self.lines)).encode()

    @lazy
    def oid(self) -> str:
        """The id of the blob of the manifest, by the hash of the ids in it."""
        return format_of(self.skeleton).blob_id(self.data)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(line.nbytes for line in self.lines)

    def trees(self, without: Set[str] = frozenset()) -> dict[str, int]:
        """Return tree -> bytes, of the skeleton and of all tensors that are not in ``without``."""
        lines = (line for line in self.lines if line.name not in without)
        return {self.skeleton: 0} | {line.tree: line.nbytes for line in lines}

    def with_store(self, store: str) -> Manifest:
        """Return the same checkpoint under another store name."""
        return replace(self, store=store)

    def same_value(self, other: Manifest) -> bool:
        """Return whether both stand for the same bytes."""
        ours = {(line.name, line.digest) for line in self.lines}
        return self.skeleton == other.skeleton and ours == {(line.name, line.digest) for line in other.lines}


def looks_like_manifest(data: bytes) -> bool:
    """Return whether ``data`` (its beginning suffices) claims to be a manifest."""
    return data.startswith(MAGIC)


def has_conflict_markers(data: bytes) -> bool:
    """Return whether ``data`` is a manifest with git's conflict markers in it."""
    return looks_like_manifest(data) and any(
        line.startswith(_MARKERS) for line in data.decode("utf-8", "replace").splitlines()
    )


def parse(data: bytes, listings: Listings | None = None) -> Manifest:
    """Return the manifest that ``data`` spells; ``listings`` reads the groups of a large one.

    Accepts tensors in any order and CRLF.  Raises :class:`ManifestError` for anything else
    that is not well formed and :class:`NewerFormatError` for a version after ours.
    """
    if len(data) > MAX_BYTES:
        raise ManifestError(f"a manifest of {len(data)} bytes is over the limit of {MAX_BYTES}")
    if not looks_like_manifest(data):
        raise ManifestError("this is not a theta manifest")
    try:
        lines = data.decode("utf-8").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        raise ManifestError("the manifest is not UTF-8") from error
    if lines[-1]:
        raise ManifestError("the manifest is cut short")
    return _parse_lines(lines[:-1], listings)


def _parse_lines(lines: list[str], listings: Listings | None) -> Manifest:
    _check_version(lines[0])
    if any(line.startswith(_MARKERS) for line in lines):
        raise ManifestError(
            "the manifest has conflict markers", hint="settle the conflict with 'theta resolve'"
        )
    container, store, skeleton = (
        _header(lines, n + 1, key) for n, key in enumerate(("format", "store", "skeleton"))
    )
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", container):
        raise ManifestError(f"bad format name {container[:80]!r}")
    if not is_store(store):
        raise ManifestError(f"bad store name {store[:80]!r}")
    if not is_id(skeleton):
        raise ManifestError("bad skeleton id")
    groups: tuple[NameGroup, ...] = ()
    if listings is not None and any(_GROUP.fullmatch(line) for line in lines[5:6]):
        groups = _distinct(_group_lines(lines[4:]), attrgetter("prefix"), "the group ")
        found = _listed(groups, listings(groups))
    else:
        found = _distinct(_tensor_lines(lines[4:]), attrgetter("name"))
    trees = {len(group.tree) for group in groups} | {len(line.tree) for line in found}
    if trees - {len(skeleton)}:
        raise ManifestError("the ids of the manifest are not of one length")
    return Manifest(container, store, skeleton, found, groups)


def _check_version(first: str) -> None:
    version = first.removeprefix(MAGIC.decode())
    if not re.fullmatch(r"[1-9][0-9]*", version):
        raise ManifestError(f"bad first line of a manifest: {first[:80]!r}")
    if version != str(VERSION):  # a greater one; it may have more digits than int() takes
        raise NewerFormatError(
            f"this checkpoint is in format {version[:20]}; this theta reads up to {VERSION}",
            hint="upgrade theta",
        )


def _header(lines: list[str], position: int, key: str) -> str:
    if position >= len(lines) or not lines[position].startswith(key + " "):
        raise ManifestError(f"line {position + 1} of the manifest must begin with '{key}'")
    return lines[position][len(key) + 1 :]


def _triples(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the first and the second line of each entry."""
    if len(lines) % 3:
        raise ManifestError("the manifest has a tensor without its three lines")
    for start in range(0, len(lines), 3):
        first, value, last = lines[start : start + 3]
        if last != "end " + first:
            raise ManifestError(f"broken entry of tensor {first[:80]!r}")
        yield first, value


def _tensor_lines(lines: list[str]) -> Iterator[Line]:
    return (_tensor(first, value) for first, value in _triples(lines))


def _distinct(entries: Iterable[E], name: Callable[[E], str], kind: str = "") -> tuple[E, ...]:
    found: dict[str, E] = {}
    for entry in entries:
        if found.setdefault(key := name(entry), entry) is not entry:
            raise ManifestError(f"the manifest names {kind}{key[:80]!r} twice")
    return tuple(found.values())


def _group_lines(lines: list[str]) -> Iterator[NameGroup]:
    for first, value in _triples(lines):
        found = _GROUP.fullmatch(value)
        if found is None:
            raise ManifestError(f"broken entry of group {first[:80]!r}")
        try:
            yield NameGroup(unescape_line(first), int(found[1]), found[2], found[3])
        except ValueError as error:
            raise ManifestError(f"bad name of group {first[:80]!r}: {error}") from error


def _listed(groups: tuple[NameGroup, ...], listings: Iterable[bytes]) -> tuple[Line, ...]:
    """Return the tensors of all groups; a listing is checked against the digest in the manifest."""
    found: list[Line] = []
    total = 0
    for group, data in zip(groups, listings, strict=True):
        total += len(data)
        if total > MAX_LISTED or hashlib.sha256(data).hexdigest() != group.digest:
            raise ManifestError(f"the listing of group {group.prefix[:80]!r} is not the one that was stored")
        lines = list(_tensor_lines(data.decode("utf-8", "replace").split("\n")[:-1]))
        inside = all(line.name.startswith(group.prefix) for line in lines)
        if not inside or len(lines) != group.count or "".join(map(Line.text, lines)).encode() != data:
            raise ManifestError(f"the listing of group {group.prefix[:80]!r} has wrong tensors")
        found += lines
    return _distinct(found, attrgetter("name"))


def _tensor(first: str, value: str) -> Line:
    found = _VALUE.fullmatch(value)
    if found is None:
        raise ManifestError(f"broken entry of tensor {first[:80]!r}")
    dtype, shape_text, digest, tree = found.groups()
    if dtype not in DTYPES or (shape := _shape(shape_text)) is None:
        raise ManifestError(f"bad type or shape of tensor {first[:80]!r}")
    try:
        line = Line(unescape_line(first), dtype, shape, digest, tree)
        total = line.nbytes
    except ValueError as error:
        raise ManifestError(f"bad entry of tensor {first[:80]!r}: {error}") from error
    if total >= 1 << 63:
        raise ManifestError(f"tensor {first[:80]!r} is too large")
    return line


@lru_cache(1024)
def _shape(text: str) -> tuple[int, ...] | None:
    """Return the shape that ``text`` spells; None when it spells none.  A model has few shapes."""
    return tuple(int(extent) for extent in text.split(", ") if extent) if _SHAPE.fullmatch(text) else None
