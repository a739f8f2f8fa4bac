"""The SHA extensions of x86 as a function that kernels call; it needs numba.

A block is a chain of instructions that wait for each other.  Two chains side by side take the
time of one.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, Final

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.extending import intrinsic

_PRIMES: Final = 64
_WORD, _NUMBER, _KIND = ir.IntType(32), ir.IntType(64), ir.IntType(8)
_FOUR = ir.VectorType(_WORD, 4)
_GROUPS: Final = 16
_GROUPS_OF_SHA1: Final = 20
"""The groups of four rounds of a block."""


def _constants() -> Iterator[int]:
    """Yield the first 32 bits of the fractions of the cube roots of the first primes (FIPS 180-4, 4.2.2)."""
    primes = [n for n in range(2, 312) if all(n % k for k in range(2, n))]
    for prime in primes[:_PRIMES]:
        yield _cube_root(prime << 96) & 0xFFFFFFFF


def _cube_root(value: int) -> int:
    """Return the largest integer whose cube is not above ``value``."""
    root = 0
    for bit in reversed(range(value.bit_length() // 3 + 1)):
        if (root | 1 << bit) ** 3 <= value:
            root |= 1 << bit
    return root


@intrinsic
def two_messages(_context: Any, one: Any, other: Any, blocks: Any, states: Any) -> Any:
    """Take ``blocks`` blocks of 64 bytes of two messages into their states of SHA-256.

    A state is eight words in the order of the instructions: f e b a, h g d c.  Nothing is done where the
    processor lacks the instructions.
    """
    return _written(_Rounds256, one, other, blocks, states)


@intrinsic
def two_messages_of_sha1(_context: Any, one: Any, other: Any, blocks: Any, states: Any) -> Any:
    """Take ``blocks`` blocks of 64 bytes of two messages into their states of SHA-1.

    A state is eight words in the order of the instructions: d c b a, and e behind three zeros.  Nothing is
    done where the processor lacks the instructions.
    """
    return _written(_Rounds1, one, other, blocks, states)


def _written(rounds: type[_Rounds], one: Any, other: Any, blocks: Any, states: Any) -> Any:
    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if "+sha" in context.codegen().magic_tuple()[2].split(","):
            places = [_data(context, builder, signature, args, number) for number in (0, 1, 3)]
            rounds(builder, places[:2], places[2]).write(args[2])
        return context.get_dummy_value()

    return types.void(one, other, blocks, states), write


def _data(context: Any, builder: Any, signature: Any, args: Any, number: int) -> Any:
    """Return the address of the data of an array, as that of vectors."""
    array = context.make_array(signature.args[number])(context, builder, args[number])
    return builder.bitcast(array.data, _FOUR.as_pointer())


class _Rounds:
    """Writes the loop over the blocks of two messages at ``messages``; ``states`` are where states are."""

    def __init__(self, builder: Any, messages: list[Any], states: Any) -> None:
        self._builder, self._messages, self._states = builder, messages, states

    def write(self, blocks: Any) -> None:
        """Write the loop, and load and store the states around it."""
        builder = self._builder
        before = [self._load(self._states, ir.Constant(_NUMBER, k)) for k in range(4)]
        entry = builder.block
        head, body, end = (builder.append_basic_block(name) for name in ("head", "body", "end"))
        builder.branch(head)
        builder.position_at_end(head)
        number, states = builder.phi(_NUMBER), [builder.phi(_FOUR) for _ in range(4)]
        builder.cbranch(builder.icmp_unsigned("<", number, blocks), body, end)
        builder.position_at_end(body)
        after = self._block(number, states)
        following = builder.add(number, ir.Constant(_NUMBER, 1))
        builder.branch(head)
        firsts = [ir.Constant(_NUMBER, 0), *before]
        for phi, first, then in zip([number, *states], firsts, [following, *after], strict=True):
            phi.add_incoming(first, entry)
            phi.add_incoming(then, body)
        builder.position_at_end(end)
        for k, state in enumerate(states):
            builder.store(state, builder.gep(self._states, [ir.Constant(_NUMBER, k)]), align=1)

    def _block(self, number: Any, states: list[Any]) -> list[Any]:
        """Write a block of each message, group by group in turns; return the states."""
        raise NotImplementedError

    def _load(self, place: Any, at: Any) -> Any:
        return self._builder.load(self._builder.gep(place, [at]), align=1)

    def _call(self, name: str, *args: Any) -> Any:
        return self._named(f"llvm.x86.{name}", *args)

    def _named(self, name: str, *args: Any) -> Any:
        module = self._builder.module
        function = module.globals.get(name)
        if function is None:
            kinds = [arg.type for arg in args]
            function = ir.Function(module, ir.FunctionType(_FOUR, kinds), name)
        return self._builder.call(function, args)


@cache
def _keys() -> list[Any]:
    """Return the constants of each group of rounds of SHA-256."""
    words = list(_constants())
    return [ir.Constant(_FOUR, words[4 * k : 4 * k + 4]) for k in range(_GROUPS)]


class _Rounds256(_Rounds):
    """Writes SHA-256."""

    def _block(self, number: Any, states: list[Any]) -> list[Any]:
        builder, words = self._builder, ([], [])  # type: tuple[Any, tuple[list[Any], list[Any]]]
        found, first = list(states), builder.shl(number, ir.Constant(_NUMBER, 2))
        for group in range(_GROUPS):
            for k, message in enumerate(self._messages):
                at = builder.add(first, ir.Constant(_NUMBER, group))
                words[k].append(self._read(message, at) if group < 4 else self._schedule(words[k]))
                keyed = builder.add(words[k][-1], _keys()[group])
                pair = found[2 * k : 2 * k + 2]
                pair[1] = self._call("sha256rnds2", pair[1], pair[0], keyed)
                keyed = builder.shuffle_vector(keyed, keyed, ir.Constant(_FOUR, [2, 3, 0, 0]))
                pair[0] = self._call("sha256rnds2", pair[0], pair[1], keyed)
                found[2 * k : 2 * k + 2] = pair
        return [builder.add(old, new) for old, new in zip(states, found, strict=True)]

    def _schedule(self, words: list[Any]) -> Any:
        """Return the next four words of a message."""
        early = self._call("sha256msg1", words[-4], words[-3])
        middle = self._builder.shuffle_vector(words[-2], words[-1], ir.Constant(_FOUR, [1, 2, 3, 4]))
        return self._call("sha256msg2", self._builder.add(early, middle), words[-1])

    def _read(self, place: Any, at: Any) -> Any:
        """Return four words of a message, which are big-endian."""
        return self._named("llvm.bswap.v4i32", self._load(place, at))


class _Rounds1(_Rounds):
    """Writes SHA-1."""

    def _block(self, number: Any, states: list[Any]) -> list[Any]:
        builder, words = self._builder, ([], [])  # type: tuple[Any, tuple[list[Any], list[Any]]]
        found, first = list(states), builder.shl(number, ir.Constant(_NUMBER, 2))
        for group in range(_GROUPS_OF_SHA1):
            for k, message in enumerate(self._messages):
                at = builder.add(first, ir.Constant(_NUMBER, group))
                words[k].append(self._read(message, at) if group < 4 else self._schedule(words[k]))
                state, before = found[2 * k : 2 * k + 2]
                # The fifth word is the first one of four rounds before, rotated; at first it is there.
                fifth = self._call("sha1nexte", before, words[k][-1]) if group else None
                keyed = builder.add(before, words[k][-1]) if fifth is None else fifth
                kind = ir.Constant(_KIND, group // 5)
                found[2 * k : 2 * k + 2] = self._call("sha1rnds4", state, keyed, kind), state
        return [self._added(old, new, odd) for old, new, odd in zip(states, found, 2 * [0, 1], strict=True)]

    def _added(self, old: Any, new: Any, is_fifth: int) -> Any:
        """Return a part of a state after a block."""
        return self._call("sha1nexte", new, old) if is_fifth else self._builder.add(old, new)

    def _schedule(self, words: list[Any]) -> Any:
        """Return the next four words of a message."""
        early = self._builder.xor(self._call("sha1msg1", words[-4], words[-3]), words[-2])
        return self._call("sha1msg2", early, words[-1])

    def _read(self, place: Any, at: Any) -> Any:
        """Return four words of a message, the first one last."""
        found = self._named("llvm.bswap.v4i32", self._load(place, at))
        return self._builder.shuffle_vector(found, found, ir.Constant(_FOUR, [3, 2, 1, 0]))
