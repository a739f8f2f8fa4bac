"""Surveys of chunks, by numpy and by the kernel, against a twin."""

from __future__ import annotations

import math
from collections import Counter
from itertools import accumulate

import numpy as np
import pytest
from numpy.typing import NDArray

from theta_native import byte_planes
from theta_native.coded import surveys
from theta_native.coded.surveys import Sampling, Survey

Words = NDArray[np.uint16]


def runs(groups: list[int]) -> list[int]:
    odd, mask, found = 0x9E3779B97F4A7C15, 2**64 - 1, []
    for i in range(len(groups) - 3):
        h = groups[i] * odd & mask
        if h * 64 < 1 << 64:
            for k in (1, 2, 3):
                h = (h + groups[i + k]) * odd & mask
            found.append(h)
    return found[: max(len(groups) // 4, 1)]


def twin(words: Words, slices: Sampling) -> Survey:
    marks = runs(words[: words.size & ~3].view(np.uint64).tolist())
    samples = []
    for plane in byte_planes.split(words, rotate=False):
        parts = (plane[n * slices.stride :][: slices.length] for n in range(slices.count))
        samples.append(np.concatenate([*parts]))
    sums = [sum(surveys.SCALE * n * math.log2(n) for n in Counter(one.tolist()).values()) for one in samples]
    return Survey(len(marks), len(set(marks)), samples, [round(one) for one in sums])


def survey(way: str, chunks: list[Words], slices: list[Sampling], patch: pytest.MonkeyPatch) -> list[Survey]:
    patch.setattr(surveys, "pays", lambda *_: way == "kernel")
    words = np.concatenate(chunks)
    planes = byte_planes.split(words, rotate=False)
    return surveys.survey(words, planes, [*accumulate((one.size for one in chunks), initial=0)], slices)


@pytest.mark.parametrize("way", ["kernel", "numpy"])
def test_chunks(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dice = np.random.default_rng(5)
    some = dice.integers(0, 2**16, 4000, np.uint16)
    chunks = [some, some[:0], np.tile(some[:1600], 9), np.zeros(4000, np.uint16), some[:4], some[:4003] // 99]
    slices = [Sampling(1, one.size, 0) for one in chunks]
    slices[2] = Sampling(16, 100, 931)
    found = survey(way, chunks, slices, monkeypatch)
    for one, chunk, part in zip(found, chunks, slices, strict=True):
        expected = twin(chunk, part)
        assert (one.marks, one.distinct) == (expected.marks, expected.distinct)
        for sample, wanted in zip(one.samples, expected.samples, strict=True):
            np.testing.assert_array_equal(sample, wanted)
        np.testing.assert_allclose(one.sums, expected.sums, atol=300)


def test_numpy_and_the_kernel_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    dice = np.random.default_rng(1)
    chunks = [dice.integers(0, 2**16 >> shift, 50_000, np.uint16) for shift in (0, 4, 12)]
    slices = [Sampling(16, 512, 3000)] * 3
    one, other = (survey(way, chunks, slices, monkeypatch) for way in ("kernel", "numpy"))
    assert [found.sums for found in one] == [found.sums for found in other]
    assert [(found.marks, found.distinct) for found in one] == [
        (found.marks, found.distinct) for found in other
    ]


@pytest.mark.parametrize("way", ["kernel", "numpy"])
def test_equal_runs_have_equal_marks(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    some = np.random.default_rng(1).integers(0, 2**16, 16_000, np.uint16)
    (found,) = survey(way, [np.tile(some, 3)], [Sampling(1, 9, 0)], monkeypatch)
    assert found.marks > 100
    assert found.distinct <= found.marks / 2.5
