"""Entropy and residual sections written from codecs.md, with any parameters that a decoder must take."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence

from tests.independent.forging import raw_planes
from tests.independent.numbers import Kind, Words, empty, stepper
from tests.independent.residuals import FineClass, Head


def token(value: int, small: int, fine: int) -> tuple[int, int, int]:
    """Return the token of a value, its raw bits, and how many these are."""
    if value < 1 << small:
        return value, 0, 0
    length = value.bit_length() - 1
    top = (value >> (length - fine)) & ((1 << fine) - 1)
    raw = value & ((1 << (length - fine)) - 1)
    return (1 << small) + ((length - small) << fine) + top, raw, length - fine


def _frequencies(counts: Counter[int]) -> list[int]:
    """Return frequencies that add up to 4096, none of a token that occurs being 0."""
    if not counts:
        return [4096]
    total = sum(counts.values())
    found = [max(1, counts[one] * 4096 // total) if counts[one] else 0 for one in range(max(counts) + 1)]
    while (lacking := 4096 - sum(found)) != 0:
        largest = found.index(max(found))
        found[largest] += max(lacking, 1 - found[largest])
    return found


def entropy(values: Sequence[int], contexts: Sequence[int], dice: random.Random) -> bytes:
    """Return an entropy section; tokens and clusters are drawn."""
    small = dice.randrange(9)
    fine = dice.randrange(min(small, 2) + 1)
    occurring = sorted(set(contexts))
    clusters = dice.randint(1, 8)
    cluster = {context: dice.randrange(clusters) for context in occurring}
    tokens = [token(value, small, fine) for value in values]
    counts: dict[int, Counter[int]] = defaultdict(Counter)
    for (one, _, _), context in zip(tokens, contexts, strict=True):
        counts[cluster[context]][one] += 1
    tables = [_frequencies(counts[number]) for number in range(clusters)]
    chosen = [tables[cluster[context]] for context in contexts]
    states, words = _rans([one for one, _, _ in tokens], chosen)
    head = bytes([small, fine, clusters]) + len(words).to_bytes(4, "little") + _packed(states, 4)
    flat = [frequency for table in tables for frequency in table]
    lengths = _packed([len(table) for table in tables], 2)
    mapping = bytes(cluster[context] for context in occurring) if clusters > 1 else b""
    sections = raw_planes([mapping, lengths]) + raw_planes(
        [bytes(one & 255 for one in flat), bytes(one >> 8 for one in flat)]
    )
    return head + sections + _packed(words, 2) + _raw_bits(tokens)


def _rans(tokens: Sequence[int], tables: Sequence[list[int]]) -> tuple[list[int], list[int]]:
    """Return the states that a decoder begins with, and the words of the stream."""
    states, words = [1 << 16] * 4, []
    for number in reversed(range(len(tokens))):
        table, one = tables[number], tokens[number]
        state, frequency = states[number % 4], table[one]
        if state >= frequency << 20:
            words.append(state & 0xFFFF)
            state >>= 16
        states[number % 4] = ((state // frequency) << 12) + state % frequency + sum(table[:one])
    return states, words[::-1]


def _raw_bits(tokens: Sequence[tuple[int, int, int]]) -> bytes:
    bits, length = 0, 0
    for _, raw, count in tokens:
        bits |= raw << length
        length += count
    return bits.to_bytes((length + 7) // 8, "little")


def _packed(numbers: Sequence[int], width: int) -> bytes:
    return b"".join(number.to_bytes(width, "little") for number in numbers)


def residual(
    predicted: Words, kind: Kind, dice: random.Random, fine: FineClass | None = None
) -> tuple[bytes, Words]:
    """Return a residual section, and the words that it stands for; all parameters are drawn."""
    if dice.random() < 0.1:
        return b"\0", predicted
    head = Head(
        dice.choice((0, 5, 20, 40, 130, 1030)), dice.randint(1, 8), dice.random() < 0.5, dice.randint(1, 99)
    )
    levels = bytes(dice.randrange(head.levels) for _ in range(head.blocks(len(predicted))))
    contexts = head.contexts(predicted, kind, levels, fine)
    widths = [dice.randint(0, 8 * kind.width if dice.random() < 0.1 else 4) for _ in predicted]
    values = [dice.getrandbits(width) for width in widths]
    words, step = empty(kind), stepper(kind)
    words.extend(map(step, predicted, values))
    start = b"\1" + head.top.to_bytes(2, "little") + bytes([head.levels, head.has_fine])
    section = start + head.block.to_bytes(4, "little") + raw_planes([levels])
    return section + entropy(values, contexts, dice), words
