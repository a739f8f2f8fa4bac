"""A symbolic unpickler: it runs the stack machine and never imports or calls anything.

``Global`` and ``Call`` objects represent what Python's unpickler *would* import and call.  Objects are only
built, never compared or hashed, so that nothing in a pickle can run.  Every opcode draws from a budget that
limits the memory.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from theta.errors import FormatError
from theta.formats.cursor import Cursor
from theta.formats.layout import Source

MAX_TEXT: Final = 1024 * 1024
MAX_LINE: Final = 256 * 1024
MAX_INT_BYTES: Final = 4096
_ALLOWANCE: Final = 40 * 2**20
_BUDGET_CEILING: Final = 2**30
# Bytes that one opcode may add to memory beyond its text: an object, a slot in a memo or on the stack.
_COST: Final = 88
_CHEAP: Final = 9


@dataclass(frozen=True, slots=True)
class Global:
    """An object that would be imported."""

    module: str
    name: str


@dataclass(frozen=True, slots=True)
class RawBytes:
    """Bytes, or a long text, that are left in the file at ``offset``."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True, eq=False)
class Persistent:
    """A persistent id, by which torch refers to a storage."""

    pid: object


@dataclass(slots=True, eq=False)
class Call:
    """An object that would be made by calling ``function``, with its items, pairs and state."""

    function: object
    args: object
    items: list[Any] | None = None
    pairs: list[tuple[Any, Any]] | None = None
    state: object = None


@dataclass(slots=True, eq=False)
class Dict:
    """A dictionary as pairs, because its keys are never hashed."""

    pairs: list[tuple[Any, Any]]
    state: object = None


@dataclass(frozen=True, slots=True)
class Pickle:
    """The object of a pickle, its globals and persistent ids in order, and the offset of its end."""

    root: object
    globals: tuple[Global, ...]
    persistent: tuple[Persistent, ...]
    end: int


def read_pickle(source: Source, start: int = 0, end: int | None = None) -> Pickle:
    """Read the pickle of ``source`` at ``start``, which must end before ``end``.

    Raises ``FormatError`` if Python's unpickler would fail, or if it needs more memory than the size of the
    file plus 40 MiB.
    """
    machine = Machine(source, start, source.size if end is None else end)
    root = machine.run()
    return Pickle(root, tuple(machine.globals), tuple(machine.persistent), machine.position)


class Machine(Cursor):
    """The stack machine; after an error ``globals`` has those before the failed opcode."""

    def __init__(self, source: Source, start: int, end: int) -> None:
        super().__init__(source, start, end, "pickle")
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._texts: dict[bytes, str] = {}
        self._budget = min(source.size, _BUDGET_CEILING) + _ALLOWANCE
        self.globals: dict[Global, None] = {}
        self.persistent: list[Persistent] = []

    def run(self) -> object:
        """Run until STOP; return the object on top of the stack."""
        while True:
            code = self._byte()
            if code == 0x2E:
                return self._pop()
            handler = _HANDLERS.get(code)
            if handler is None:
                raise FormatError(f"pickle: unknown opcode 0x{code:02x} at byte {self.position - 1}")
            self._spend(_CHEAP if code in _CHEAP_CODES else _COST)
            handler(self)

    # Reading.

    def _byte(self) -> int:
        """Return the next byte as a number."""
        at = self._at
        if at >= len(self._buffer):
            return self.take(1)[0]
        self._at = at + 1
        return self._buffer[at]

    def _spend(self, cost: int) -> None:
        self._budget -= cost
        if self._budget < 0:
            raise FormatError("pickle: it would need far more memory than its size")

    def _line(self) -> bytes:
        line = bytearray()
        while True:
            byte = self.take(1)
            if byte == b"\n":
                return bytes(line)
            line += byte
            if len(line) > MAX_LINE:
                raise FormatError("pickle: a line is too long")

    def _blob(self, length: int) -> RawBytes:
        return RawBytes(self.skip(length), length)

    def _text(self, length: int, encoding: str = "utf-8") -> object:
        if length > MAX_TEXT:
            return self._blob(length)
        raw = self.take(length)
        text = self._texts.get(raw)
        if text is None:
            self._spend(4 * length)
            try:
                text = raw.decode(encoding, "surrogatepass")
            except UnicodeDecodeError as error:
                raise FormatError("pickle: a text is not valid unicode") from error
            if len(raw) <= 64 and len(self._texts) < 4096:
                self._texts[raw] = text
        return text

    # The stack.

    def _push(self, value: object) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        if not self._stack:
            raise FormatError("pickle: the stack is empty")
        return self._stack.pop()

    def _top(self) -> Any:
        if not self._stack:
            raise FormatError("pickle: the stack is empty")
        return self._stack[-1]

    def _mark(self) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def _pop_mark(self) -> list[Any]:
        if not self._marks:
            raise FormatError("pickle: there is no mark")
        items = self._stack
        self._stack = self._marks.pop()
        self._spend(8 * len(items))
        return items

    def _drop(self) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._pop_mark()

    # Memo.

    def _put(self, index: int) -> None:
        if index < 0:
            raise FormatError("pickle: a negative memo index")
        self._memo[index] = self._top()

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise FormatError("pickle: a memo entry that was never written")
        self._push(self._memo[index])

    # Objects.

    def _global(self, module: object, name: object) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            module, name = "?", "?"
        found = Global(module, name)
        self.globals[found] = None
        self._push(found)

    def _call(self) -> None:
        args = self._pop()
        self._push(Call(self._pop(), args))

    def _call_with_keywords(self) -> None:
        keywords, args = self._pop(), self._pop()
        self._push(Call(self._pop(), (args, keywords)))

    def _instance(self) -> None:
        """Run INST: call a global named in the text."""
        module, name = self._name_line(), self._name_line()
        args = tuple(self._pop_mark())
        self._global(module, name)
        self._push(Call(self._pop(), args))

    def _object(self) -> None:
        """Run OBJ: call the first object after the mark."""
        args = self._pop_mark()
        if not args:
            raise FormatError("pickle: OBJ without a class")
        self._push(Call(args[0], tuple(args[1:])))

    def _name_line(self) -> str:
        return self._line().decode("utf-8", "replace")

    def _build(self) -> None:
        state = self._pop()
        target = self._top()
        if isinstance(target, (Call, Dict)):
            target.state = state

    def _extend(self, items: list[Any]) -> None:
        target = self._top()
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, Call):
            if target.items is None:
                target.items = []
            target.items.extend(items)
        elif not isinstance(target, Global):
            raise FormatError("pickle: items for what cannot hold them")

    def _update(self, flat: list[Any]) -> None:
        if len(flat) % 2:
            raise FormatError("pickle: a key without a value")
        pairs = list(zip(flat[::2], flat[1::2], strict=True))
        self._spend(64 * len(pairs))
        target = self._top()
        if isinstance(target, Dict):
            target.pairs.extend(pairs)
        elif isinstance(target, Call):
            if target.pairs is None:
                target.pairs = []
            target.pairs.extend(pairs)
        elif not isinstance(target, Global):
            raise FormatError("pickle: pairs for what cannot hold them")

    def _append_one(self) -> None:
        self._extend([self._pop()])

    def _set_one(self) -> None:
        value = self._pop()
        self._update([self._pop(), value])

    def _tuple_of(self, count: int) -> None:
        if len(self._stack) < count:
            raise FormatError("pickle: the stack is empty")
        items = tuple(self._stack[-count:])
        del self._stack[-count:]
        self._push(items)

    def _new_dict(self) -> None:
        flat = self._pop_mark()
        self._push(Dict([]))
        self._update(flat)

    # Numbers.

    def _long(self, width: int) -> None:
        length = self.number(width)
        if length > MAX_INT_BYTES:
            raise FormatError("pickle: an integer of too many bytes")
        self._push(int.from_bytes(self.take(length), "little", signed=True))

    def _int_line(self) -> None:
        text = self._line()
        if text in (b"00", b"01"):
            self._push(text == b"01")
        else:
            self._push(_decimal(text.removesuffix(b"L")))

    def _float_line(self) -> None:
        try:
            self._push(float(self._line()))
        except ValueError as error:
            raise FormatError("pickle: not a number") from error

    def _memo_line(self, action: Callable[[int], None]) -> None:
        action(_decimal(self._line()))


def _decimal(text: bytes) -> int:
    try:
        return int(text[: MAX_INT_BYTES + 1])
    except ValueError as error:
        raise FormatError("pickle: not a number") from error


def _text_line(machine: Machine) -> None:
    machine._push(machine._name_line())


def _float(machine: Machine) -> None:
    machine._push(struct.unpack(">d", machine.take(8))[0])


def _signed(machine: Machine) -> None:
    machine._push(int.from_bytes(machine.take(4), "little", signed=True))


def _stack_global(machine: Machine) -> None:
    name = machine._pop()
    machine._global(machine._pop(), name)


def _persistent(machine: Machine) -> None:
    found = Persistent(machine._pop())
    machine.persistent.append(found)
    machine._push(found)


_HANDLERS: Final[dict[int, Callable[[Machine], object]]] = {
    ord("("): Machine._mark,
    ord("0"): Machine._drop,
    ord("1"): Machine._pop_mark,
    ord("2"): lambda m: m._push(m._top()),
    ord("N"): lambda m: m._push(None),
    0x88: lambda m: m._push(True),
    0x89: lambda m: m._push(False),
    0x80: lambda m: m.take(1),
    0x95: lambda m: m.take(8),
    ord("K"): lambda m: m._push(m._byte()),
    ord("M"): lambda m: m._push(m.number(2)),
    ord("J"): _signed,
    0x8A: lambda m: m._long(1),
    0x8B: lambda m: m._long(4),
    ord("I"): Machine._int_line,
    ord("L"): Machine._int_line,
    ord("G"): _float,
    ord("F"): Machine._float_line,
    ord("S"): _text_line,
    ord("V"): _text_line,
    ord("T"): lambda m: m._push(m._text(m.number(4), "latin-1")),
    ord("U"): lambda m: m._push(m._text(m.number(1), "latin-1")),
    ord("X"): lambda m: m._push(m._text(m.number(4))),
    0x8C: lambda m: m._push(m._text(m.number(1))),
    0x8D: lambda m: m._push(m._text(m.number(8))),
    ord("B"): lambda m: m._push(m._blob(m.number(4))),
    ord("C"): lambda m: m._push(m._blob(m.number(1))),
    0x8E: lambda m: m._push(m._blob(m.number(8))),
    0x96: lambda m: m._push(m._blob(m.number(8))),
    0x97: lambda m: m._push(Global("?", "out-of-band buffer")),
    0x98: Machine._top,
    ord("c"): lambda m: m._global(m._name_line(), m._name_line()),
    0x93: _stack_global,
    0x82: lambda m: m._global("copyreg", f"extension {m.number(1)}"),
    0x83: lambda m: m._global("copyreg", f"extension {m.number(2)}"),
    0x84: lambda m: m._global("copyreg", f"extension {m.number(4)}"),
    ord("i"): lambda m: m._instance(),
    ord("o"): lambda m: m._object(),
    ord("R"): lambda m: m._call(),
    0x81: lambda m: m._call(),
    0x92: Machine._call_with_keywords,
    ord("b"): lambda m: m._build(),
    ord("P"): lambda m: m._push(Persistent(m._name_line())),
    ord("Q"): _persistent,
    ord(")"): lambda m: m._push(()),
    ord("t"): lambda m: m._push(tuple(m._pop_mark())),
    0x85: lambda m: m._tuple_of(1),
    0x86: lambda m: m._tuple_of(2),
    0x87: lambda m: m._tuple_of(3),
    ord("]"): lambda m: m._push([]),
    ord("l"): lambda m: m._push(m._pop_mark()),
    0x8F: lambda m: m._push([]),
    0x91: lambda m: m._push(m._pop_mark()),
    ord("}"): lambda m: m._push(Dict([])),
    ord("d"): Machine._new_dict,
    ord("a"): Machine._append_one,
    ord("e"): lambda m: m._extend(m._pop_mark()),
    0x90: lambda m: m._extend(m._pop_mark()),
    ord("s"): Machine._set_one,
    ord("u"): lambda m: m._update(m._pop_mark()),
    ord("g"): lambda m: m._memo_line(m._get),
    ord("h"): lambda m: m._get(m._byte()),
    ord("j"): lambda m: m._get(m.number(4)),
    ord("p"): lambda m: m._memo_line(m._put),
    ord("q"): lambda m: m._put(m._byte()),
    ord("r"): lambda m: m._put(m.number(4)),
    0x94: lambda m: m._put(len(m._memo)),
}
# These opcodes only add a reference.
_CHEAP_CODES: Final = frozenset(b"\x80\x95\x88\x89\x98NK012hjgtba)\x90esu")
