"""Golden encodings decode for ever, and no mutation of them does worse than CodecError."""

import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.codecs.fuzz_worker import attack
from tests.codecs.golden_cases import Golden, decode, load_all
from theta.codecs import names

CASES = load_all()
ROOT = Path(__file__).parents[2]


def test_every_codec_has_golden_encodings() -> None:
    assert {golden.encoded.codec for golden in CASES} == set(names())


@pytest.mark.parametrize("golden", CASES, ids=lambda golden: golden.name)
def test_golden_encodings_decode(golden: Golden) -> None:
    raw = np.concatenate(decode(golden)).tobytes()
    assert hashlib.sha256(raw).hexdigest() == golden.sha256


@pytest.mark.parametrize("golden", CASES, ids=lambda golden: golden.name)
def test_mutations_are_refused_or_harmless(golden: Golden) -> None:
    rng = random.Random(golden.name)
    refused = sum(attack(golden, rng) for _ in range(40))
    assert refused > 0


def campaign(seed: int, count: int, **extra: str) -> None:
    subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.codecs.fuzz_worker", str(seed), str(count)],
        cwd=ROOT,
        env={**os.environ, **extra},
        check=True,
    )


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("checked", [False, True])
def test_campaign(seed: int, checked: bool, tmp_path: Path) -> None:
    """200,000 mutations in child processes under a memory limit, with and without bounds checks."""
    extra = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)} if checked else {}
    campaign(seed, 12_500, **extra)
