"""Files, texts and encodings that were changed at random: each is read soundly or refused in one line.

Nothing may be run, imported, opened or started for one, and no more memory may be asked for than its own size
and 64 MiB.
"""

from __future__ import annotations

import codecs
import importlib
import pkgutil
import random
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

import theta.merging
from bench.trust.hostile_texts import TEXTS, Read, golden_texts
from bench.trust.outcome import FaultError
from tests.codecs import fuzz_worker
from tests.codecs.golden_cases import decode, load_all
from tests.formats import fuzzing
from tests.formats.helpers import mutate
from theta.errors import ThetaError

_WARM: Final = 300
_ENCODINGS: Final = [f"utf-{bits}{end}" for bits in (16, 32) for end in ("", "-le", "-be")] + ["utf-8-sig"]
"""Encodings that JSON may be in, whose modules Python imports when it meets them."""
_LONGEST: Final = 600
"""Characters of a message."""


class _Guarded:
    """Runs changed inputs under the guard of :mod:`tests.formats.fuzzing`."""

    counts = "inputs"
    each = 500

    def __init__(self) -> None:
        self.seen: list[str] = []

    def _watched(self, run: Callable[[], str]) -> str:
        word = run()
        if self.seen:
            event, self.seen[:] = self.seen[0], []
            raise FaultError("executed", event)
        return word


class Files(_Guarded):
    """Checkpoint files of all formats; their pickles are scanned too."""

    name = "files"
    title = "Mutated checkpoint files of all formats, and the pickles in them"

    kinds = sorted(fuzzing.FORMATS)

    def prepare(self, _place: Path) -> None:
        """Read the files, load what is loaded lazily, and set up the guard for the rest of the process."""
        for kind in self.kinds:
            for data in fuzzing.seeds(kind):
                fuzzing.check(data)
            fuzzing.run(kind, -1, _WARM)
        self.seen = fuzzing.guard()

    def case(self, seed: int, number: int) -> str:
        """Change one file and read it."""
        kind, dice = self.kinds[seed % len(self.kinds)], random.Random(f"files {seed} {number}")
        data = mutate(dice.choice(fuzzing.seeds(kind)), dice, fuzzing.FORMATS[kind][1])
        return self._watched(lambda: "read" if fuzzing.check(data) else "kept as bytes")


class Texts(_Guarded):
    """Manifests, records, tables, recipes, configurations of adapters and whatever else theta parses."""

    name = "texts"
    title = "Mutated manifests, records, tables, recipes, adapter configurations and other texts"

    def prepare(self, place: Path) -> None:
        """Read the samples, load what is loaded lazily, and set up the guard for the rest of the process."""
        self.load(place)
        for kind in self.kinds:
            for number in range(_WARM):
                self._read(kind, random.Random(number))
        for name in _ENCODINGS:
            codecs.lookup(name)
        for module in pkgutil.walk_packages(theta.merging.__path__, "theta.merging."):
            importlib.import_module(module.name)
        self.seen = fuzzing.guard()

    def load(self, place: Path) -> None:
        """Read the samples."""
        self.texts: dict[str, tuple[Read, list[bytes], list[bytes]]] = {
            **TEXTS,
            **golden_texts(place, lambda *command: subprocess.run(command, check=True)),
        }
        self.kinds = sorted(self.texts)
        for kind in self.kinds:
            read, samples, _ = self.texts[kind]
            for sample in samples:
                read(sample)

    def case(self, seed: int, number: int) -> str:
        """Change one text and read it."""
        kind = self.kinds[seed % len(self.kinds)]
        return self._watched(lambda: self._read(kind, random.Random(f"texts {seed} {number}")))

    def _read(self, kind: str, dice: random.Random) -> str:
        read, samples, tokens = self.texts[kind]
        data = mutate(dice.choice(samples), dice, tokens)
        try:
            read(data)
        except ThetaError as error:
            assert "\n" not in str(error), f"{kind}: {error} of {data!r}"
            assert len(str(error)) <= _LONGEST, f"{kind}: {len(str(error))} characters of {data!r}"
            return "refused"
        except Exception as error:
            raise FaultError("other", f"{kind}: {type(error).__name__}: {error} of {data!r}") from error
        return "read"


class Codecs:
    """Encoded tensors of every codec: a tensor of the right form, or ``CodecError``."""

    name = "codecs"
    title = "Mutated encodings of every codec"
    counts = "inputs"
    each = 500

    def prepare(self, _place: Path) -> None:
        """Load the golden encodings and their kernels, and limit the memory of the process."""
        np.seterr(all="ignore")
        self.golden = load_all()
        for golden in self.golden:
            decode(golden)
        resource.setrlimit(resource.RLIMIT_AS, (fuzz_worker.MEMORY, fuzz_worker.MEMORY))

    def case(self, seed: int, number: int) -> str:
        """Change one encoding and decode it."""
        dice = random.Random(f"codecs {seed} {number}")
        golden: Any = dice.choice(self.golden)
        return "refused" if fuzz_worker.attack(golden, dice) else "decoded"
