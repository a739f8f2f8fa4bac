"""Entropy sections that one call decodes, against the coder's own steps; damaged ones are refused."""

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.native import stepwise, told_leaves
from theta.codecs import entropy, frames
from theta.errors import CodecError
from theta_native import differences, tokens, unwritable
from theta_native.coded import sections
from theta_native.contexts import ContextKeys, Levels

DTYPES = ("u1", "u2", "u4", "u8")
COUNT = 6


def keys_of(seed: int, size: int) -> ContextKeys:
    """Contexts by bits of words in blocks of two levels; some may not occur."""
    there = np.random.default_rng(seed)
    words = there.integers(0, 1 << 16, size).astype(np.uint16)
    levels = there.integers(0, 2, -(-size // 16)).astype(np.uint8)
    numbers = there.integers(0, COUNT, (2, 8)).astype(np.uint16)
    return ContextKeys(words, 3, numbers, Levels(levels, 2, 16), COUNT)


def contexts_of(keys: ContextKeys) -> "np.ndarray[Any, np.dtype[np.uint16]]":
    """The context of each word, by definition."""
    levels = np.repeat(keys.levels.of_blocks, keys.levels.block)[: keys.words.size]
    found: np.ndarray[Any, np.dtype[np.uint16]] = keys.numbers[levels, (keys.words >> 3) & 7]
    return found


def values_of(seed: int, size: int, dtype: str, kind: int) -> "np.ndarray[Any, Any]":
    """Values that are their own tokens, that are all one, or of any size."""
    there = np.random.default_rng(seed)
    if kind == 0:
        return there.integers(0, 3, size).astype(dtype)
    if kind == 1:
        return np.full(size, 2, dtype)
    wide = there.integers(0, 1 << 62, size, np.uint64) >> there.integers(0, 62, size, np.uint64)
    found: np.ndarray[Any, Any] = wide.astype(dtype)
    return found


def section_of(seed: int, size: int, dtype: str, kind: int, rule: int) -> tuple[bytes, ContextKeys, Any]:
    keys, values = keys_of(seed, size), values_of(seed, size, dtype, kind)
    rules = (entropy.TOKEN_RULES[rule],)
    coding = entropy.choose(values, contexts_of(keys), (COUNT, 1, 1), rules)
    return entropy.encode(values, keys, coding).data, keys, values


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", range(3))
@pytest.mark.parametrize("size", [1, 2, 15, 64, 997, 5000])
def test_values_come_back_and_the_end_is_found(dtype: str, kind: int, size: int) -> None:
    for rule in (0, 1):
        data, keys, values = section_of(size, size, dtype, kind, rule)
        for behind in (b"", b"\xff" * 7):
            found, end = entropy.decode(memoryview(b"\1" + data + behind), 1, keys, values.dtype)
            assert np.array_equal(found, values)
            assert found.dtype == values.dtype
            assert end == 1 + len(data)


def test_what_is_told_of_the_arguments_is_so(monkeypatch: pytest.MonkeyPatch) -> None:
    known = told_leaves.checked(monkeypatch, sections)
    for dtype in DTYPES:
        for size, kind, rule in ((1, 0, 0), (64, 1, 0), (997, 2, 1), (5000, 0, 1)):
            data, keys, values = section_of(size, size, dtype, kind, rule)
            shut = replace(keys, words=unwritable(keys.words))
            for one in (keys, shut):
                found, _ = entropy.decode(memoryview(data), 0, one, values.dtype)
                assert np.array_equal(found, values)
    assert len(known) == 2 * len(DTYPES)


@pytest.mark.parametrize("dtype", DTYPES)
def test_words_are_changed_as_the_values_say(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The values are differences less 1, in the contexts of their words or in groups of these."""
    known = told_leaves.checked(monkeypatch, sections)
    there = np.random.default_rng(0)
    for size, kind, parts in ((1, 0, 1), (64, 2, 1), (997, 1, 2), (997, 2, 3)):
        keys, words = keys_of(size, size), there.integers(0, 1 << 7, size).astype(dtype)
        places = np.flatnonzero(there.random(size) < 0.5).astype(np.uint32)
        places = places if places.size else np.zeros(1, np.uint32)
        levels = np.repeat(keys.levels.of_blocks, 16)[places].astype(np.uint16)
        marks = levels * np.uint16(8) + ((keys.words[places] >> 3) & 7)
        contexts = keys.numbers.reshape(-1)[marks] // np.uint16(parts)
        values = values_of(size, places.size, dtype, kind)
        coding = entropy.choose(values, contexts, (COUNT, 1, 1), entropy.TOKEN_RULES[:1])
        data = entropy.encode(values, ContextKeys.of(contexts, COUNT), coding).data
        for is_float in (False, True):
            changed, wanted = words.copy(), words.copy()
            wanted[places] = differences.restore(values + values.dtype.type(1), words[places], is_float)
            told = sections.ChangedWords(changed, keys, places, marks, is_float)
            entropy.stored(memoryview(data), 0).change(told, COUNT, parts)
            assert np.array_equal(changed, wanted)
            longer = entropy.stored(memoryview(data + b"\0"), 0)
            with pytest.raises(CodecError, match="bytes behind its end"):
                longer.change(told, COUNT, parts)
            assert np.array_equal(changed, wanted)
    assert len(known) == 1


@pytest.mark.parametrize("kind", range(3))
def test_a_section_is_what_the_coder_reads_step_by_step(kind: int) -> None:
    """The same tokens as by the tables spelled out."""
    data, keys, values = section_of(3, 997, "u2", kind, 1)
    view = memoryview(data)
    s, m, count, size, *states = entropy._HEAD.unpack_from(view)
    planes, ends, at = frames.stored_planes(view, entropy._HEAD.size, (2, 2), sections.LONGEST)
    parts = [
        planes[a:b].repeat(1 if not flag else 10_000)
        for a, b, flag in zip(ends[:4], ends[1:5], ends[5:], strict=True)
    ]
    used = parts[1][: 2 * count].copy().view("<u2").astype(int)
    table, start = np.zeros((count, tokens.alphabet(16, s, m)), np.uint32), 0
    for k in range(count):
        low, high = (part[start : start + used[k]].astype(np.uint32) for part in parts[2:])
        table[k, : used[k]], start = low | high << 8, start + used[k]
    clusters = np.zeros(COUNT, np.uint8)
    occurring = stepwise.occurring(keys)
    clusters[occurring] = parts[0][: occurring.size] if count > 1 else 0
    stream = np.frombuffer(view, "<u2", size, at).copy()
    named = stepwise.named(np.array(states, np.uint32), stream, keys, clusters, table)
    assert named is not None
    read = stepwise.read_raw(named, s, m, np.frombuffer(view[at + 2 * size :], np.uint8), values.dtype)
    assert read is not None
    assert np.array_equal(read[0], values)
    assert at + 2 * size + read[1] == len(data)


@pytest.mark.parametrize("kind", range(3))
def test_damaged_sections_are_refused_or_give_values(kind: int) -> None:
    """Any byte may be another one: what comes out has the right number of values, or it is an error."""
    there = random.Random(kind)
    refused = 0
    for seed in range(12):
        data, keys, values = section_of(seed, 200, "u2", kind, seed % 2)
        for _ in range(60):
            wrong = bytearray(data)
            wrong[there.randrange(len(wrong))] ^= 1 << there.randrange(8)
            given = bytes(wrong[: there.randrange(len(wrong))] if there.random() < 0.3 else wrong)
            try:
                found, end = entropy.decode(memoryview(given), 0, keys, values.dtype)
            except CodecError:
                refused += 1
            else:
                assert found.size == values.size
                assert end <= len(given)
    assert refused > 400


def test_numbers_less_others_add_up() -> None:
    there = np.random.default_rng(0)
    for levels, fine in ((1, 1), (1, 8), (3, 1), (4, 16)):
        numbers = there.integers(0, 256, (24, levels, fine)).astype(np.uint8)
        stored = numbers.copy()
        stored[:, :, 1:] -= numbers[:, :, :-1]
        stored[1:, :, 0] -= numbers[:-1, :, 0]
        stored[0, 1:, 0] -= numbers[0, :-1, 0]
        out = np.empty(numbers.size, np.uint8)
        most = sections.summed(stored.reshape(-1), levels, levels * fine, out)
        assert np.array_equal(out, numbers.reshape(-1))
        assert most == numbers.max()
