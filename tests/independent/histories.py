"""Random histories of checkpoints, whose changes ask for every codec between them."""

from __future__ import annotations

import io
import json
import random
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from tests.independent.odb import Objects
from tests.support import Repo, make_model, sha256

Array = NDArray[Any]
FLOATS: Final = (
    ml_dtypes.bfloat16,
    np.float16,
    np.float32,
    np.float64,
    ml_dtypes.float8_e4m3fn,
    ml_dtypes.float8_e5m2,
)
WIDE: Final = (ml_dtypes.bfloat16, np.float16, np.float32)
BITS: Final = (ml_dtypes.float8_e8m0fnu, ml_dtypes.float8_e4m3fnuz, ml_dtypes.float8_e5m2fnuz)
INTEGERS: Final = (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64)
SAMPLES: Final = Path(__file__).parent.parent / "formats" / "data"
KINDS: Final = ("pt", "gguf", "joblib", "onnx", "h5")


class Model:
    """The tensors of one file, and the steps that change them."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.rng = np.random.default_rng(seed)
        self.tensors: dict[str, Array] = {}
        self._deck: list[tuple[Change, tuple[Any, ...]]] = []
        for number, dtype in enumerate((*FLOATS, ml_dtypes.bfloat16, np.float16)):
            self.tensors[f"layers.{number}.weight"] = self._normal(70 + number, 64).astype(dtype)
        for number, dtype in enumerate(WIDE):
            self.tensors[f"wide.{number}.weight"] = self._normal(256, 128).astype(dtype)
        self.tensors["phase"] = self._normal(12, 8).astype(np.complex64)
        for dtype in (*INTEGERS, *BITS, np.bool_):
            self.tensors[np.dtype(dtype).name] = self._any_bits(dtype, 40, 32)
        self.tensors |= {
            "empty": np.zeros((0, 4), np.float32),
            "scalar": np.array(self.dice.random(), np.float64),
            "constant": np.full((40, 8), 0.5, np.float32),
            "a/b..c.\u00e9\n con": np.array([np.nan, -0.0, np.inf, 1e-45], np.float32),
        }

    def _normal(self, *shape: int) -> Array:
        return self.rng.normal(0, 0.02, shape)

    def _any_bits(self, dtype: Any, *shape: int) -> Array:
        if dtype == np.bool_:
            return self.rng.random(shape) < 0.5
        raw = self.rng.bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize)
        return np.frombuffer(raw, dtype).reshape(shape)

    def step(self) -> None:
        """Make some changes: a kind is drawn again when all kinds were made."""
        for _ in range(8):
            self._deck = self._deck or self.dice.sample(CHANGES, len(CHANGES))
            change, kinds = self._deck.pop()
            names = [key for key, value in self.tensors.items() if value.ndim == 2 and value.dtype in kinds]
            if names:
                with np.errstate(all="ignore"):
                    change(self, self.dice.choice(names))

    def tuned(self, name: str) -> None:
        """Add noise of the size of a learning rate to all values."""
        old = self.tensors[name]
        if _is_float(old):
            noise = self.rng.normal(0, 10 ** self.rng.uniform(-6, -2), old.shape)
            moved = old.astype(np.complex128) + noise
            self.tensors[name] = (moved if old.dtype == np.complex64 else moved.real).astype(old.dtype)

    def replaced(self, name: str) -> None:
        """Give a few words new bits."""
        self._change_words(name, 0.02, lambda words: self._any_bits(words.dtype, words.size))

    def stepped(self, name: str) -> None:
        """Move a few words by a few units in the last place."""
        share = 10 ** self.rng.uniform(-2.5, -1.5)
        self._change_words(
            name,
            share,
            lambda words: words + self.rng.choice((-2, -1, -1, 1), words.size).astype(words.dtype),
        )

    def nudged(self, name: str) -> None:
        """Move many words by one unit."""
        share = self.rng.uniform(0.05, 0.2)
        self._change_words(
            name, share, lambda words: words + self.rng.choice((1, -1), words.size).astype(words.dtype)
        )

    def _change_words(self, name: str, share: float, change: Callable[[Array], Array]) -> None:
        old = self.tensors[name]
        if old.dtype == np.bool_ or not old.size:
            return
        width = 4 if old.dtype == np.complex64 else old.dtype.itemsize
        words = np.frombuffer(old.tobytes(), f"u{width}").copy()
        chosen = self.rng.random(words.size) < share
        words[chosen] = change(words[chosen])
        self.tensors[name] = np.frombuffer(words.tobytes(), old.dtype).reshape(old.shape)

    def adapted(self, name: str) -> None:
        """Merge a LoRA."""
        old = self.tensors[name]
        if _is_float(old) and old.dtype != np.complex64:
            rank = self.dice.randint(1, 2)
            rows, columns = old.shape
            thin = self.rng.normal(0, 0.05, (rows, rank)) @ self.rng.normal(0, 0.05, (rank, columns))
            self.tensors[name] = (old.astype("f4") + thin.astype("f4")).astype(old.dtype)

    def converted(self, name: str) -> None:
        """Cast to another type of the same kind."""
        old = self.tensors[name]
        if _is_float(old) and old.dtype != np.complex64:
            self.tensors[name] = old.astype(self.dice.choice(FLOATS))
        elif old.dtype.kind in "iu":
            self.tensors[name] = old.astype(self.dice.choice(INTEGERS))

    def scaled(self, name: str) -> None:
        """Multiply rows or columns by factors."""
        old = self.tensors[name]
        if _is_float(old) and old.dtype != np.complex64:
            shape = self.dice.choice(((old.shape[0], 1), (1, old.shape[1])))
            self.tensors[name] = (old.astype("f8") * self.rng.uniform(0.5, 1.5, shape)).astype(old.dtype)

    def moved(self, name: str) -> None:
        """Drop a row, put new ones in and turn some around."""
        old = self.tensors[name]
        if len(old) > 8:
            first = self.dice.randrange(len(old) - 6)
            turned = np.concatenate([old[:first], old[first + 1 : first + 4][::-1], old[first + 4 :]])
            fresh = np.roll(old[:2], 1, axis=1)
            self.tensors[name] = np.insert(turned, [self.dice.randrange(len(turned))] * 2, fresh, axis=0)

    def tied(self, name: str) -> None:
        """Copy a tensor to another name, or remove that."""
        if self.tensors.pop("tied", None) is None:
            self.tensors["tied"] = self.tensors[name]

    def filled(self, name: str) -> None:
        """Make a tensor constant, in all its words or but in few."""
        if self.dice.random() < 0.3:
            self.tensors[name] = np.full_like(self.tensors[name], 1)


def _is_float(array: Array) -> bool:
    return array.dtype in [np.dtype(one) for one in (*FLOATS, np.complex64)]


Change = Callable[[Model, str], None]
WHOLE: Final = (*FLOATS, np.complex64, *INTEGERS, *BITS)
CHANGES: Final[tuple[tuple[Change, tuple[Any, ...]], ...]] = (
    (Model.tuned, (*FLOATS, np.complex64)),
    (Model.tuned, WIDE),
    (Model.replaced, WHOLE),
    (Model.replaced, WIDE),
    (Model.stepped, WHOLE),
    (Model.stepped, WIDE),
    (Model.nudged, WHOLE),
    (Model.nudged, WIDE[:2]),
    (Model.adapted, WIDE),
    (Model.converted, FLOATS),
    (Model.converted, INTEGERS),
    (Model.scaled, FLOATS),
    (Model.scaled, WIDE),
    (Model.moved, (*WHOLE, np.bool_)),
    (Model.tied, WHOLE),
    (Model.filled, WHOLE),
)
"""The kinds of changes, with the dtypes that they are made to."""


class Story:
    """A repository with a history, and the digests of its files at each commit."""

    def __init__(self, place: Path, seed: int, *options: str) -> None:
        self.repo = Repo.create(place)
        self.model = Model(seed)
        self.digests: dict[str, dict[str, str]] = {}
        self.repo.theta("track", "*.safetensors", "*.npz", "*.blob", *(f"*.{kind}" for kind in KINDS))

    def live(self, commits: int) -> None:
        """Make some commits of changes to all files."""
        for number in range(commits):
            if number:
                self.model.step()
            self._write(number)
            self.repo.theta("add", ".")
            self.repo.theta("commit", "-q", "-m", f"step {number}")
            files = self.repo.theta("ls-files").stdout.split()
            commit = self.repo.git("rev-parse", "HEAD")
            self.digests[commit] = {path: sha256(self.repo.path / path) for path in files}

    def codecs(self) -> set[str]:
        """Return the codecs that the tensors of all commits are stored with."""
        rows = [row.split() for row in self.repo.git("rev-list", "--all", "--objects").splitlines()]
        with Objects(self.repo.path) as objects:
            found = [json.loads(objects.blob(row[0], 2**20)) for row in rows if row[-1].endswith("/@tensor")]
        return {layer["codec"] for record in found for layer in record["layers"]}

    def _write(self, number: int) -> None:
        tensors, dice = self.model.tensors, self.model.dice
        make_model(self.repo.path / "model.safetensors", tensors, {"step": str(number)})
        shared = {key: value for key, value in tensors.items() if value.nbytes < 3000}
        _write_npz(self.repo.path / "arrays.npz", shared)
        cut = len(shared) // 2 + dice.randint(-1, 1)
        for part, names in enumerate((list(shared)[:cut], list(shared)[cut:]), 1):
            shard = self.repo.path / "shards" / f"model-{part:05d}-of-00002.safetensors"
            make_model(shard, {name: tensors[name] for name in names})
        self.repo.write("noise.blob", self.model.rng.bytes(dice.randint(0, 2000)))
        for sample in SAMPLES.glob("*.[12].*"):
            stem, version, kind = sample.name.split(".")
            if kind in KINDS and version == str(number % 2 + 1) and dice.random() < 0.3:
                shutil.copyfile(sample, self.repo.path / f"{stem}.{kind}")


def _write_npz(path: Path, tensors: Mapping[str, Array]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in tensors.items():
            if value.dtype.kind in "biuf":
                file = io.BytesIO()
                np.save(file, value)
                archive.writestr(zipfile.ZipInfo(name.partition("/")[0] + ".npy"), file.getvalue())
