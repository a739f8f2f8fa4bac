"""Checkpoints of a few stored tensors with one thing in them that the specification may not allow."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.independent.forging import FILE, FOLDER
from tests.independent.manifest_text import Entry, escape
from tests.independent.mutants import StoredVersions

Files = list[tuple[str, str, str]]
"""(name, mode, id) of each entry of a tree, in the order in which it is written."""
PIECE: Final = 2**22
LARGEST: Final = 2**18
"""The bytes of a tensor that is taken: the independent reader is slow."""
VALUES: Final[tuple[Any, ...]] = (
    True,
    False,
    None,
    0,
    1,
    2,
    4,
    -1,
    2**62,
    2**63,
    10**18,
    10**17,
    1.0,
    "",
    "u8",
    "f32",
    [],
    {},
)
CODECS: Final = ("dense/1", "delta/1", "cast/1", "rows/1", "scaled/1", "lowrank/1", "sparse/1", "dense/2")
MODES: Final = ("100755", "100664", "120000", "100600", "0100644", "160000", FOLDER)
STORES: Final = (
    *("con", "CON.x", "a.nul", "com1.bin", "com1x", "git~1", "a.git~12", "-x", "~x", "a b", " a", "a ", "a."),
    *(
        ".a",
        "%a",
        "a%b",
        "@a",
        "a@b",
        "a:b",
        "a/b",
        "a\\b",
        "\u00e9",
        "x" * 200,
        "x" * 201,
        "aux.%~1",
        "conin$",
    ),
    *("..", "a..b", "a*b", 'a"b', "a\tb", "lpt\u00b9", "", "a\u2028b", "con-1", "a.con 1", "1con", "con1"),
)
NAMES: Final = (
    "1.shared",
    "0.shared",
    "0.9999",
    "3.0000",
    "0.00000",
    "0.00001",
    "4.0000",
    "x",
    "@self",
    "0.0000 ",
)


@dataclass
class StoredParts:
    """A stored tensor, taken apart."""

    name: str
    entry: Entry
    files: Files
    record: bytes
    tree: str = ""
    line: str = ""


@dataclass
class Parts:
    """A checkpoint, taken apart; what is twisted is written instead of what would follow."""

    tensors: list[StoredParts]
    head: dict[str, str]
    table: list[str]
    literal: bytes = b""
    skeleton: Files = field(default_factory=list)
    text: str = ""

    @property
    def table_text(self) -> str:
        """The table as it is written."""
        return "".join(f"{line}\n" for line in ("theta skeleton 1", *self.table))


class Twists(StoredVersions):
    """Checkpoints made of small tensors."""

    def __init__(self, repository: Path, commits: list[str], path: str, seed: int) -> None:
        super().__init__(repository, commits, path, seed)
        small = ((name, entry) for name, entry in self.tensors if entry.size <= LARGEST)
        self._entries = {entry.tree: (name, entry) for name, entry in small}

    def make(self, count: int) -> Iterator[tuple[str, str]]:
        """Yield commits of one checkpoint, ``model.bin``, and what is twisted in it."""
        for _ in range(count):
            twist = self.dice.choice(TWISTS)
            yield self._commit(self._parts(), twist), twist.__name__

    def _parts(self) -> Parts:
        """Return a checkpoint of one to three tensors, with or without bytes between them."""
        chosen = self.dice.sample(sorted(self._entries), self.dice.choice((1, 1, 2, 3)))
        tensors = dict(self._entries[tree] for tree in chosen)
        found, table, literal = [], [], b""
        for name, entry in sorted(tensors.items()):
            files = [(key, FILE, oid) for key, oid in self.objects.files(entry.tree).items()]
            record = next(oid for key, _, oid in files if key == "@tensor")
            found.append(StoredParts(name, entry, files, self.objects.blob(record, 2**20)))
            if self.dice.random() < 0.4:
                table.append("literal 5")
                literal += b"bytes"
            table.append(f"extent {entry.size} {escape(name)}")
        return Parts(found, {"format": "npy", "store": "model.bin"}, table, literal)

    def _commit(self, parts: Parts, twist: Twist) -> str:
        """Write the objects of a checkpoint, from the inside out; ``twist`` is let at it at every level."""
        step = _Step(twist, self, parts)
        step("record")
        for one in parts.tensors:
            oid = self.forge.blob(one.record)
            one.files = [(key, mode, oid if key == "@tensor" else old) for key, mode, old in one.files]
        step("tree")
        for one in parts.tensors:
            one.tree = self.write_tree(one.files)
        step("table")
        table = parts.table_text.encode()
        parts.skeleton = [*self._pieces("table", table), *self._pieces("literal", parts.literal)]
        step("skeleton")
        parts.head.setdefault("skeleton", self.write_tree(parts.skeleton))
        for one in parts.tensors:
            kind, shape = one.entry.kind.name, one.entry.shape
            one.line = f"{kind} {shape} sha256:{one.entry.digest} {one.tree}"
        step("manifest")
        parts.text = parts.text or self.text(parts)
        step("text")
        content = parts.text.encode("utf-8", "surrogateescape")
        return self.forge.manifest(content, {"x": (FILE, self.forge.blob(b""))})

    @staticmethod
    def text(parts: Parts) -> str:
        """Return the manifest."""
        head = "".join(f"{key} {value}\n" for key, value in parts.head.items())
        return "theta checkpoint 1\n" + head + "".join(map(triple, parts.tensors))

    def write_tree(self, files: Files) -> str:
        """Write a tree as it is given."""
        rows = [f"{mode} {name}\0".encode() + bytes.fromhex(oid) for name, mode, oid in files]
        return self.forge.put("tree", b"".join(rows))

    def _pieces(self, kind: str, data: bytes) -> Files:
        return [
            (f"{kind}.{number:04d}", FILE, self.forge.blob(data[start : start + PIECE]))
            for number, start in enumerate(range(0, len(data), PIECE))
        ]


@dataclass
class _Step:
    """Calls a twist at the level that it is for."""

    twist: Twist
    twists: Twists
    parts: Parts

    def __call__(self, level: str) -> None:
        if LEVELS[self.twist] == level:
            self.twist(self.twists, self.parts)


def triple(one: StoredParts) -> str:
    """Return the three lines of a tensor."""
    return f"{escape(one.name)}\n    {one.line}\nend {escape(one.name)}\n"


Twist = Callable[[Twists, Parts], None]

# -- what may be twisted -----------------------------------------------------------------------


def nothing(_: Twists, __: Parts) -> None:
    """Leave all as it is."""


def a_value_of_the_record(twists: Twists, parts: Parts) -> None:
    """Put another value somewhere into a record, or remove or add a key."""
    one, dice = twists.dice.choice(parts.tensors), twists.dice
    record = json.loads(one.record)
    at, key = dice.choice(list(_places(record)))
    action = dice.random()
    if action < 0.1:
        del at[key]
    elif action < 0.2 and isinstance(at, dict):
        at["more"] = dice.choice(VALUES)
    elif action < 0.3 and isinstance(at, list):
        at.insert(0, at[key])
    else:
        at[key] = dice.choice((*VALUES, *CODECS))
    one.record = json.dumps(record).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each container of a JSON document with each of its keys."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def the_text_of_the_record(twists: Twists, parts: Parts) -> None:
    """Write a record in another way, which may mean the same."""
    one, dice = twists.dice.choice(parts.tensors), twists.dice
    text = one.record.decode()
    changes: list[tuple[str, str]] = [
        ('"theta": 1', '"theta": 1, "theta": 1'),
        ('"theta": 1', '"theta": 1.0'),
        ('"theta": 1', '"theta": 01'),
        ('"theta": 1', '"th\\u0065ta": 1'),
        ('"dtype"', '  "dtype"\r\n'),
        ("[0", "[-0"),
        ("{", "\ufeff{"),
        ("}", "}\n\u00a0"),
        ("}", "} "),
        ('": "', '": "\u00e9'),
        ("a", "A"),
        (": [", ": [ "),
        ('"base": 0', '"base": -0'),
        ('"base": 0', '"base": false'),
        ('", "', '" ,"'),
        ("\n", " "),
    ]
    old, new = dice.choice(changes)
    one.record = text.replace(old, new, dice.choice((1, -1))).encode()


def a_digest_of_the_record(twists: Twists, parts: Parts) -> None:
    """Write a digest or an id with a space, or in capitals."""
    one, dice = twists.dice.choice(parts.tensors), twists.dice
    record = json.loads(one.record)
    for row in record["chunks"][:1]:
        row[1] = dice.choice((row[1].upper(), row[1][:-2] + "  ", row[1][:-1], row[1] + "00"))
    one.record = json.dumps(record).encode()


def a_layer(twists: Twists, parts: Parts) -> None:
    """Put a layer that nothing rests on below the value, with or without files."""
    one, dice = twists.dice.choice(parts.tensors), twists.dice
    record = json.loads(one.record)
    codec, shape = dice.choice(CODECS), dice.choice(([3], [2**40], [], [0], one.entry.shape))
    new = {"codec": codec, "base": dice.choice((None, None, 0)), "dtype": dice.choice(("u8", "f4", "bytes"))}
    record["layers"] = [new | {"shape": shape}, *({**row} for row in record["layers"])]
    for row in record["layers"][1:]:
        row["base"] = None if row["base"] is None else row["base"] + 1
    record["files"] = {_higher(name): oid for name, oid in record["files"].items()}
    one.files = [(_higher(name), mode, oid) for name, mode, oid in one.files]
    if dice.random() < 0.5:
        _add_file(twists, one, record, dice.choice(("0.0000", "0.shared", "0.0001")))
    one.record = json.dumps(record).encode()


def _higher(name: str) -> str:
    return f"{int(name[0]) + 1}{name[1:]}" if name[0].isdigit() else name


def _add_file(twists: Twists, one: StoredParts, record: dict[str, Any], name: str) -> None:
    oid = twists.forge.blob(b"\1\1\1\0\0\0\0")
    record["files"][name] = oid
    one.files = sorted([*(row for row in one.files if row[0] != name), (name, FILE, oid)])


def a_file_of_both(twists: Twists, parts: Parts) -> None:
    """Add a file to a tree and its record, or rename or remove one in both."""
    one, dice = twists.dice.choice(parts.tensors), twists.dice
    record = json.loads(one.record)
    if dice.random() < 0.4 or not record["files"]:
        _add_file(twists, one, record, dice.choice(NAMES))
    else:
        old, new = dice.choice(sorted(record["files"])), dice.choice(NAMES)
        record["files"] = {new if name == old else name: oid for name, oid in record["files"].items()}
        one.files = sorted((new if name == old else name, mode, oid) for name, mode, oid in one.files)
    one.record = json.dumps(record).encode()


def an_entry_of_the_tree(twists: Twists, parts: Parts) -> None:
    """Change an entry of a tensor's tree, and not its record."""
    one = twists.dice.choice(parts.tensors)
    one.files = _twisted(twists, one.files)


def an_entry_of_the_skeleton(twists: Twists, parts: Parts) -> None:
    """Change an entry of the skeleton's tree."""
    parts.skeleton = _twisted(twists, parts.skeleton)


def _twisted(twists: Twists, files: Files) -> Files:
    dice = twists.dice
    at = dice.randrange(len(files))
    name, mode, oid = files[at]
    other = twists.forge.blob(dice.choice((b"", b"x", b"theta skeleton 1\n")))
    changed: Files = dice.choice(
        (
            [(name, dice.choice(MODES), oid)],
            [],
            [(name, mode, oid)] * 2,
            [(name, mode, oid), (name, mode, other)],
            [(name, mode, other)],
            [(name, mode, oid), (dice.choice(NAMES), mode, oid)],
            [
                (
                    dice.choice(("table.0001", "table.00000", "literal.0001", "literal.0000", "@tensor")),
                    mode,
                    oid,
                )
            ],
            [(name, mode, oid), (dice.choice(("table.0001", "literal.0000", "literal.0001")), mode, other)],
        )
    )
    return [*files[:at], *changed, *files[at + 1 :]]


def the_pieces(twists: Twists, parts: Parts) -> None:
    """Cut the table or the literals elsewhere."""
    kind = twists.dice.choice(("table", "literal"))
    data = parts.table_text.encode() if kind == "table" else parts.literal
    cut = twists.dice.choice((0, len(data) // 2, len(data)))
    parts.skeleton = [row for row in parts.skeleton if not row[0].startswith(kind)]
    for number, piece in enumerate((data[:cut], data[cut:])):
        parts.skeleton.append((f"{kind}.{number:04d}", FILE, twists.forge.blob(piece)))


def a_segment(twists: Twists, parts: Parts) -> None:
    """Change a line of the table."""
    dice = twists.dice
    at = dice.randrange(len(parts.table))
    line = parts.table[at]
    kind, _, rest = line.partition(" ")
    changed: list[str] = dice.choice(
        (
            [f"{kind} 0{rest}"],
            [f"{line} "],
            [f" {line}"],
            [line.replace(" ", "  ", 1)],
            [f"{kind} +{rest}"],
            [line, "literal 0"],
            [line, "literal 00"],
            [f"{line}\r"],
            [line, ""],
            [line, line],
            [],
            [line, f"extent 0 {dice.choice(('nowhere', escape(parts.tensors[0].name)))}"],
            [line.upper()],
            [line, "extent 0 "],
        )
    )
    parts.table[at : at + 1] = changed


def a_derived_field(twists: Twists, parts: Parts) -> None:
    """Add one or two derived fields."""
    dice, size = twists.dice, sum(int(line.split()[1]) for line in parts.table)
    for _ in range(dice.choice((1, 2, 2))):
        operation, width = dice.choice(
            (("crc32", 4), ("crc32c-masked", 4), ("copy", 4), ("fold-decimal", 20))
        )
        first, many = dice.randrange(size + 8), dice.choice((0, 1, 3, 4, 8))
        place = dice.choice(
            (f"{first}+{many}", f"{first}+4", "0+4", f"0{first}+4", f"{size}+4", "0+2,2+2", "0+0")
        )
        rank = dice.choice(("0", "1", "2", "00", "999999", "1000000"))
        width = dice.choice((width, width, width, 0, 1, 5, 65))
        order = dice.choice(("little", "big", "big", "middle"))
        line = f"derived {width} {operation} {order} {rank} {place}"
        parts.table.insert(dice.randrange(len(parts.table) + 1), line)


def the_store(twists: Twists, parts: Parts) -> None:
    """Give the store another name."""
    dice = twists.dice
    name = "".join(dice.choice("abcn019.%@~$ -_/:\u00e9\u00e9\x7f") for _ in range(dice.randrange(1, 8)))
    parts.head["store"] = dice.choice((*STORES, name, name, name))


def the_head(twists: Twists, parts: Parts) -> None:
    """Change the head of the manifest."""
    dice, skeleton = twists.dice, parts.head["skeleton"]
    key = dice.choice(("format", "skeleton"))
    parts.head[key] = {
        "format": dice.choice(("npy", "NPY", "", "a" * 64, "a" * 65, ".a", "a b", "0-._")),
        "skeleton": dice.choice(
            (skeleton.upper(), skeleton[:-1], skeleton + "0" * 24, skeleton + " ", "0" * 40)
        ),
    }[key]
    if dice.random() < 0.3:
        parts.head = dict(dice.sample(sorted(parts.head.items()), len(parts.head)))


def a_line(twists: Twists, parts: Parts) -> None:
    """Change the line of a tensor."""
    one, dice = twists.dice.choice(parts.tensors), twists.dice
    old, new = dice.choice(
        (
            *((" [", "  ["), ("[", "[0"), ("]", ", 1]"), ("]", "]  "), ("sha256:", "sha256:0"), ("u8", "i8")),
            *(("[", "[ "), (", ", ","), ("sha256", "SHA256"), ("a", "A"), ("[", "[1, "), ("]", ", 0]")),
            *(("f", "\uff46"), ("]", f"{', 1' * 64}]"), ("]", f", {10**17}]"), ("]", f", {10**18}]")),
        )
    )
    one.line = one.line.replace(old, new, dice.choice((1, -1)))


def a_name(twists: Twists, parts: Parts) -> None:
    """Write the name of a tensor in another way, in the manifest and in the table."""
    one, dice = twists.dice.choice(parts.tensors), twists.dice
    strange = dice.choice(
        ("theta x", "end", "<x", "x ", "", "a\\b", "a\nb", "\x85", "a\u2028", "#a", "\u00e9", " ")
    )
    written = dice.choice(
        (escape(strange), strange, escape(strange) + " ", "\\u0061", "\\u", "\\x", "\\", "a\\u")
    )
    parts.text = Twists.text(parts).replace(triple(one), f"{written}\n    {one.line}\nend {written}\n")
    parts.table = [line.replace(escape(one.name), written) for line in parts.table]
    lines = parts.table_text.encode("utf-8", "surrogatepass")
    table = [row for row in parts.skeleton if row[0] != "table.0000"]
    tree = twists.write_tree([*table, ("table.0000", FILE, twists.forge.blob(lines))])
    parts.text = parts.text.replace(parts.head["skeleton"], tree)


def the_lines(twists: Twists, parts: Parts) -> None:
    """Change the text of the manifest."""
    dice = twists.dice
    lines = parts.text.split("\n")
    at = dice.randrange(len(lines))
    action = dice.choice(
        ("drop", "repeat", "blank", "swap", "crlf", "cr", "marker", "end", "triple", "nul", "bom")
    )
    changes: dict[str, Callable[[], list[str]]] = {
        "drop": lambda: [*lines[:at], *lines[at + 1 :]],
        "repeat": lambda: [*lines[:at], lines[at], *lines[at:]],
        "blank": lambda: [*lines[:at], "", *lines[at:]],
        "swap": lambda: [*lines[:at], *lines[at : at + 2][::-1], *lines[at + 2 :]],
        "crlf": lambda: "\r\n".join(lines).split("\n"),
        "cr": lambda: [*lines[:at], lines[at] + dice.choice(("\r", "\r\r")), *lines[at + 1 :]],
        "marker": lambda: [*lines[:at], dice.choice(("<<<<<<< x", "=======", ">>>>>>> y")), *lines[at:]],
        "end": lambda: lines[:-1],
        "triple": lambda: [*lines[:-1], *lines[4:7], ""],
        "nul": lambda: [
            *lines[:at],
            lines[at] + dice.choice(("\0", "\udc80", "\u2028", "\x0b")),
            *lines[at + 1 :],
        ],
        "bom": lambda: ["\ufeff" + lines[0], *lines[1:]],
    }
    parts.text = "\n".join(changes[action]())


def the_groups(twists: Twists, parts: Parts) -> None:
    """List the tensors in groups, with or without a fault."""
    dice, names = twists.dice, {one.name[:1] for one in parts.tensors}
    prefixes = dice.choice(([""], sorted(names), ["", ""], [*sorted(names), dice.choice(sorted(names))]))
    text = ""
    for prefix in prefixes:
        inside = [one for one in parts.tensors if one.name.startswith(prefix)]
        listing = "".join(map(triple, inside)).encode("utf-8", "surrogateescape")
        listing = dice.choice((listing, listing, listing, listing.replace(b"\n", b"\r\n"), listing[:-1]))
        tree = twists.write_tree(_listing_files(twists, listing))
        count = dice.choice((str(len(inside)),) * 5 + ("0", "01", "9999999999"))
        name = escape(prefix)
        proof = hashlib.sha256(listing).hexdigest()
        text += f"{name}\n    group [{count}] sha256:{proof} {tree}\nend {name}\n"
    parts.text = Twists.text(Parts([], parts.head, [])) + text


def _listing_files(twists: Twists, listing: bytes) -> Files:
    files: Files = [("lines", FILE, twists.forge.blob(listing))]
    return files if twists.dice.random() < 0.5 else _twisted(twists, files)


LEVELS: Final[dict[Twist, str]] = {
    nothing: "record",
    a_value_of_the_record: "record",
    the_text_of_the_record: "record",
    a_digest_of_the_record: "record",
    a_layer: "record",
    a_file_of_both: "record",
    an_entry_of_the_tree: "tree",
    an_entry_of_the_skeleton: "skeleton",
    the_pieces: "skeleton",
    a_segment: "table",
    a_derived_field: "table",
    the_store: "manifest",
    the_head: "manifest",
    a_line: "manifest",
    a_name: "manifest",
    the_lines: "text",
    the_groups: "text",
}
"""The level at which each twist is made: the objects below it are written already."""
TWISTS: Final = tuple(LEVELS)
