"""A depth-first walk through symbolic Python objects that names what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from theta.formats.layout import MAX_NAME_BYTES
from theta.formats.pickle.pickle_vm import Call, Dict

MAX_DEPTH: Final = 100
_NAME_ALLOWANCE: Final = 16 * 2**20
_COST: Final = 200

Leaf = TypeVar("Leaf")


def walk(
    root: object, leaf: Callable[[object], Leaf | None], size: int, hidden: frozenset[str] = frozenset()
) -> Iterator[tuple[str, Leaf]]:
    """Yield (name, leaf) for each leaf below ``root``; a name is keys and indices joined by dots.

    A leaf is an object for which ``leaf`` does not return None.  Any other container is entered once, so
    that cycles and shared objects are harmless.  Attributes in ``hidden`` are not part of a name.  The walk
    ends when all names together are longer than ``size`` (that of the file) plus 16 MiB.
    """
    seen: set[int] = set()
    attributes: set[int] = set()
    stack: list[Iterator[tuple[str, object]]] = [iter([("", root)])]
    names = [""]
    allowance = size + _NAME_ALLOWANCE
    while stack and allowance > 0:
        step = next(stack[-1], None)
        if step is None:
            stack.pop()
            names.pop()
            continue
        segment, value = step
        found = leaf(value)
        enter = found is None and isinstance(value, (list, tuple, Dict, Call)) and id(value) not in seen
        if found is None and not (enter and len(stack) < MAX_DEPTH):
            continue
        name = ".".join(part for part in (names[-1], segment) if part)
        allowance -= len(name) + _COST
        if len(name) * 4 > MAX_NAME_BYTES:
            continue
        if found is not None:
            yield name, found
        else:
            seen.add(id(value))
            if isinstance(value, Call):
                attributes.update(id(state) for state in _states(value))
            stack.append(_children(value, hidden if id(value) in attributes else frozenset()))
            names.append(name)


def _children(value: object, hidden: frozenset[str]) -> Iterator[tuple[str, object]]:
    if isinstance(value, (list, tuple)):
        yield from ((str(index), item) for index, item in enumerate(value))
    elif isinstance(value, Dict):
        yield from (("" if segment in hidden else segment, item) for segment, item in _entries(value.pairs))
    elif isinstance(value, Call):
        if isinstance(value.args, tuple):
            yield from ((str(index), item) for index, item in enumerate(value.args))
        yield from _entries(value.pairs or [])
        yield from ((str(index), item) for index, item in enumerate(value.items or []))
        yield from (("", state) for state in _states(value))


def _states(value: Call) -> tuple[object, ...]:
    return value.state if isinstance(value.state, tuple) else (value.state,)


def _entries(pairs: list[tuple[object, object]]) -> Iterator[tuple[str, object]]:
    return ((_segment(key, index), value) for index, (key, value) in enumerate(pairs))


def _segment(key: object, index: int) -> str:
    if isinstance(key, str):
        return key.encode("utf-8", "replace").decode()
    if isinstance(key, int) and -(2**63) <= key < 2**63:
        return str(key)
    return f"#{index}"
