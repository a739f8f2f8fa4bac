"""Pickles of objects of plain values and tensors, as torch checkpoints of optimizers and training loops are.

An object is None, a bool, int, float, text or bytes, or a list, tuple, dict or ``OrderedDict`` of objects,
or a tensor; a scalar of numpy is the number.  Writing makes every opcode here, reading makes every object
here: nothing is imported or called.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final

from theta._numpy import np
from theta.errors import FormatError
from theta.formats.layout import clip
from theta.formats.pickle.object_walk import MAX_DEPTH
from theta.formats.pickle.pickle_vm import Call, Dict, Global

NEW_DICT: Final = b"ccollections\nOrderedDict\n)R"
_ENCODE: Final = b"c_codecs\nencode\n("
_ORDERED: Final = Global("collections", "OrderedDict")
_LONGEST: Final = 255
"""Bytes of an integer: torch's reader knows the short opcode only."""
_METADATA: Final = "_metadata"
"""The attribute in which the state dict of a module has the versions of its parts."""
_SCALARS: Final = (type(None), bool, int, float, str)


def written(root: object, tensor: Callable[[str, Any], bytes]) -> bytes:
    """Return the pickle of ``root``, without the opcodes that begin and end it.

    ``tensor`` is given whatever is not plain with its name, which is keys and indices joined by dots, and
    returns the opcodes that rebuild it.  Mappings of other classes become dicts.  Raises ``FormatError`` for
    an object that is nested deeper than names reach, such as one that holds itself.
    """
    return _Writer(tensor).value("", root, MAX_DEPTH - 1)


class _Writer:
    def __init__(self, tensor: Callable[[str, Any], bytes]) -> None:
        self._tensor = tensor

    def value(self, name: str, value: Any, room: int) -> bytes:
        if room < 0:
            raise FormatError(f"torch: {clip(name)} is nested too deeply, or holds itself")
        plain = _plain(value)
        if plain is not None:
            return plain
        if isinstance(value, Mapping):
            return self._mapping(name, value, room)
        if type(value) is list or _is_tuple(value):
            items = (self.value(_joined(name, str(n)), item, room - 1) for n, item in enumerate(value))
            body = b"".join(items)
            return b"](" + body + b"e" if type(value) is list else b"(" + body + b"t"
        return self._tensor(name or "tensor", value)

    def _mapping(self, name: str, value: Mapping[Any, Any], room: int) -> bytes:
        is_ordered = isinstance(value, OrderedDict)
        body = b"".join(
            _key(name, key) + self.value(_joined(name, str(key)), item, room - 1)
            for key, item in value.items()
        )
        made = (NEW_DICT if is_ordered else b"}") + b"(" + body + b"u"
        versions = getattr(value, _METADATA, None) if is_ordered else None
        if versions is None:
            return made
        return (
            made + b"}(" + text(_METADATA) + self.value(_joined(name, _METADATA), versions, room - 1) + b"ub"
        )


def _joined(name: str, segment: str) -> str:
    return ".".join(part for part in (name, segment) if part)


def _is_tuple(value: object) -> bool:
    """Return whether it is a tuple, or torch's ``Size``, and not one with names."""
    return type(value) is tuple or (isinstance(value, tuple) and type(value).__name__ == "Size")


def _key(name: str, key: object) -> bytes:
    if type(key) not in _SCALARS:
        raise FormatError(f"torch: {clip(name) if name else 'the object'} has a key of {type(key).__name__}")
    return _plain(key) or b""


def _plain(value: object) -> bytes | None:
    """Return the opcodes of a value without parts; None for any other."""
    if isinstance(value, np.generic) and value.dtype.kind not in "mM":  # dates are no numbers
        value = value.item()
    kind = type(value)
    if kind is bool or value is None:
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]  # type: ignore[index]
    if kind is int:
        return number(value)  # type: ignore[arg-type]
    if kind is float:
        return b"G" + struct.pack(">d", value)
    if kind is str:
        return text(value)  # type: ignore[arg-type]
    if kind is bytes:
        return _ENCODE + text(value.decode("latin-1")) + text("latin1") + b"tR"  # type: ignore[attr-defined]
    return None


def text(value: str) -> bytes:
    """Return the opcodes of a text."""
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    """Return the opcodes of an integer; raises ``FormatError`` for one of over 255 bytes."""
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    length = value.bit_length() // 8 + 1
    if length > _LONGEST:
        raise FormatError(f"torch: an integer of {length} bytes cannot be written")
    length = max(length, 9)
    return b"\x8a" + bytes([length]) + value.to_bytes(length, "little", signed=True)


def numbers(values: tuple[int, ...]) -> bytes:
    """Return the opcodes of a tuple of integers."""
    return b"(" + b"".join(map(number, values)) + b"t"


def read(root: object, tensor: Callable[[object], Any]) -> Any:
    """Return the object that the symbolic ``root`` stands for.

    ``tensor`` returns the tensor that a call would rebuild, or None.  What the pickle shares is shared in the
    object.  Raises ``FormatError`` for what is not plain.
    """
    return _Reader(tensor).value(root, MAX_DEPTH)


class _Reader:
    def __init__(self, tensor: Callable[[object], Any]) -> None:
        self._tensor = tensor
        self._known: dict[int, Any] = {}

    def value(self, value: Any, room: int) -> Any:
        if isinstance(value, _SCALARS):
            return value
        if id(value) not in self._known:
            if room < 0:
                raise FormatError("torch: the object is nested too deeply")
            self._known[id(value)] = self._made(value, room - 1)
        return self._known[id(value)]

    def _made(self, value: Any, room: int) -> Any:
        if isinstance(value, list):
            return [self.value(item, room) for item in value]
        if isinstance(value, tuple):
            return tuple(self.value(item, room) for item in value)
        if isinstance(value, Dict) and value.state is None:
            return self._filled({}, value.pairs, room)
        found = self._tensor(value)
        return self._called(value, room) if found is None else found

    def _called(self, value: Any, room: int) -> Any:
        function = value.function if isinstance(value, Call) else None
        args = value.args if isinstance(value, Call) and isinstance(value.args, tuple) else None
        if function == _ORDERED and args == ():
            made: OrderedDict[Any, Any] = self._filled(OrderedDict(), value.pairs or [], room)
            if isinstance(value.state, Dict):
                vars(made).update(self._filled({}, value.state.pairs, room))
            return made
        if function == Global("torch", "Size") and args is not None and len(args) == 1:
            return tuple(self.value(args[0], room))
        if function == Global("_codecs", "encode") and args is not None and _is_latin(args):
            return args[0].encode("latin-1")
        raise FormatError(f"torch: the object has {_named(function or value)}, which is not plain data")

    def _filled(self, made: Any, pairs: list[tuple[Any, Any]], room: int) -> Any:
        for key, item in pairs:
            known = self.value(key, room)
            if not isinstance(known, Hashable) or not isinstance(known, (*_SCALARS, bytes)):
                raise FormatError("torch: the object has a key that is not plain")
            made[known] = self.value(item, room)
        return made


def _is_latin(args: tuple[Any, ...]) -> bool:
    """Return whether these are the arguments of the call that stands for bytes."""
    return (
        len(args) == 2
        and isinstance(args[0], str)
        and args[1] in ("latin1", "latin-1")
        and (all(char <= "\xff" for char in args[0]))
    )


def _named(value: object) -> str:
    if isinstance(value, Global):
        return clip(f"{value.module}.{value.name}")
    return f"a {type(value).__name__.lower()}"
