"""The text at the path of a checkpoint, and its listings (format.md, section 2)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tests.independent.numbers import KINDS, Kind
from tests.independent.odb import Objects
from tests.independent.primitives import refuse, require

MAX_MANIFEST: Final = 8 * 2**20
MAX_LISTINGS: Final = 134_217_728
_CONTROL: Final = re.compile("[\0-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]")
_FORMAT: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_STORE: Final = re.compile(r"[A-Za-z0-9_+=,()\[\]{}!#&;^~$ %.-]{1,200}")
_DEVICE: Final = re.compile(
    r"(con|prn|aux|nul|com[0-9]|lpt[0-9]|conin\$|conout\$|git~[0-9]+)(?![A-Za-z0-9])", re.IGNORECASE
)
_TENSOR: Final = re.compile(r" {4}(\w+) \[([0-9, ]*)\] sha256:([0-9a-f]{64}) ([0-9a-f]+)")
_GROUP: Final = re.compile(r" {4}group \[([1-9][0-9]{0,8})\] sha256:([0-9a-f]{64}) ([0-9a-f]+)")


@dataclass(frozen=True)
class Entry:
    """One tensor of a manifest."""

    kind: Kind
    shape: list[int]
    digest: str
    tree: str

    @property
    def size(self) -> int:
        """The bytes of the tensor."""
        return self.kind.size(self.shape)


@dataclass(frozen=True)
class Manifest:
    """The skeleton's tree, and all tensors by name."""

    skeleton: str
    entries: dict[str, Entry]


def escape(name: str) -> str:
    """Return a name as it stands on a line."""
    if not name:
        return "\\u"
    text = _CONTROL.sub(lambda found: _code(found[0]), name.replace("\\", "\\\\"))
    if len(text) > 1 and text.endswith(" "):
        text = text[:-1] + _code(" ")
    if text[0] in " <>=|#" or name.partition(" ")[0] in ("theta", "format", "store", "skeleton", "end"):
        text = _code(text[0]) + text[1:]
    return text


def _code(character: str) -> str:
    return f"\\u{ord(character):04x}"


def unescape(text: str) -> str:
    """Return the name that stands on a line, which must be written as ``escape`` writes it."""
    name = re.sub(
        r"\\(\\|u([0-9a-f]{4})|u$)",
        lambda found: chr(int(found[2], 16)) if found[2] else found[0][1:].strip("u"),
        text,
    )
    require(escape(name) == text, f"the name {text!r} is not escaped as it must be")
    return name


def parse(objects: Objects, oid: str) -> Manifest:
    """Read a manifest, with its listings if it has groups."""
    width = len(oid)
    lines = _lines(objects.blob(oid, MAX_MANIFEST), crlf=True)
    skeleton = _head(lines[:4], width)
    triples = list(_triples(lines[4:]))
    if triples and _GROUP.fullmatch(triples[0][1]):
        triples = list(_listed(objects, triples, width))
    entries: dict[str, Entry] = {}
    for name, line in triples:
        require(name not in entries, f"{name!r} is listed twice")
        entries[name] = _entry(line, width)
    return Manifest(skeleton, entries)


def _lines(raw: bytes, crlf: bool) -> list[str]:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        refuse("a manifest is not UTF-8")
    require(text.endswith("\n"), "the last line of a manifest is not ended")
    lines = text[:-1].split("\n")
    return [line.removesuffix("\r") for line in lines] if crlf else lines


def _head(lines: Sequence[str], width: int) -> str:
    """Check the first four lines; return the id of the skeleton."""
    require(len(lines) == 4 and lines[0].startswith("theta checkpoint "), "this is no manifest")
    require(lines[0] == "theta checkpoint 1", f"the version is unknown: {lines[0][:80]!r}")
    keys = ("format ", "store ", "skeleton ")
    require(all(map(str.startswith, lines[1:], keys)), "a manifest has another head")
    container, store, skeleton = (line.removeprefix(key) for line, key in zip(lines[1:], keys, strict=True))
    require(_FORMAT.fullmatch(container) is not None, "the format has a bad name")
    good = _STORE.fullmatch(store) and store[0] not in " .%" and store[-1] not in " ."
    require(bool(good) and not any(map(_DEVICE.match, store.split("."))), "the store has a bad name")
    return _id(skeleton, width)


def _id(text: str, width: int) -> str:
    require(re.fullmatch(r"[0-9a-f]*", text) is not None and len(text) == width, f"{text!r} is no id")
    return text


def _triples(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the name and the second line of each three lines."""
    require(len(lines) % 3 == 0, "an entry has not three lines")
    for at in range(0, len(lines), 3):
        require(lines[at + 2] == f"end {lines[at]}", f"the entry {lines[at]!r} has another end")
        yield unescape(lines[at]), lines[at + 1]


def _listed(objects: Objects, groups: Iterable[tuple[str, str]], width: int) -> Iterator[tuple[str, str]]:
    """Yield the entries of the listings of all groups."""
    left, prefixes = MAX_LISTINGS, set()
    for prefix, line in groups:
        match = _GROUP.fullmatch(line)
        if not match or prefix in prefixes:
            refuse(f"the group {prefix!r} stands twice, or is none")
        prefixes.add(prefix)
        files = objects.files(_id(match[3], width))
        require(list(files) == ["lines"], "the tree of a group holds something else")
        raw = objects.blob(files["lines"], left)
        left -= len(raw)
        require(hashlib.sha256(raw).hexdigest() == match[2], "a listing has another digest")
        found = list(_triples(_lines(raw, crlf=False)))
        require(len(found) == int(match[1]), "a listing has another number of tensors")
        require(all(name.startswith(prefix) for name, _ in found), "a listing has a tensor of another prefix")
        yield from found


def _entry(line: str, width: int) -> Entry:
    match = _TENSOR.fullmatch(line)
    if not match:
        refuse(f"a tensor has a bad line: {line[:80]!r}")
    extents = match[2].split(", ") if match[2] else []
    require(all(re.fullmatch(r"0|[1-9][0-9]{0,17}", one) for one in extents), "a shape has a bad extent")
    kind, shape = kind_and_shape(match[1], [int(one) for one in extents])
    return Entry(kind, shape, match[3], _id(match[4], width))


def kind_and_shape(dtype: object, shape: object) -> tuple[Kind, list[int]]:
    """Check a dtype and a shape, of a manifest or of a record."""
    if not isinstance(dtype, str) or dtype not in KINDS:
        refuse(f"the dtype {dtype!r} is unknown")
    if not isinstance(shape, list) or len(shape) > 64:
        refuse("a shape is no list of at most 64 extents")
    require(all(type(one) is int and 0 <= one < 10**18 for one in shape), "a shape has a bad extent")
    KINDS[dtype].size(shape)
    return KINDS[dtype], shape
