"""Checks that the libraries open what a plain git merge of two branches left, with both branches' values.

Run by hand with whatever libraries are there: ``python -m tests.formats.test_plain_merges FOLDER`` with
theta's environment, then ``python check_merges.py FOLDER`` with each other one.
"""

import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import make_story  # type: ignore[import-not-found, unused-ignore]
import numpy as np

BIG = make_story.BIG.tobytes()[::-1]
SMALL = make_story.SMALL * 3


def torch(folder: Path) -> tuple[Any, Any]:
    """With weights_only, mapped; zipfile checks the CRC-32s."""
    import torch  # type: ignore[import-not-found, unused-ignore]

    assert zipfile.ZipFile(folder / "torch.pt").testzip() is None
    found = torch.load(folder / "torch.pt", weights_only=True, mmap=True)["model"]
    legacy = torch.load(folder / "legacy.pt", weights_only=True)
    assert (legacy["small"].numpy() == SMALL).all()
    return found["big"].numpy(), found["small"].numpy()


def gguf(folder: Path) -> tuple[Any, Any]:
    import gguf  # type: ignore[import-not-found, unused-ignore]

    found = {tensor.name: tensor.data for tensor in gguf.GGUFReader(folder / "model.gguf").tensors}
    return found["big"], found["small"]


def hdf5(folder: Path) -> tuple[Any, Any]:
    import h5py  # type: ignore[import-not-found, import-untyped, unused-ignore]

    with h5py.File(folder / "plain.h5") as file:
        return file["big"][:], file["small"][:]


def joblib(folder: Path) -> tuple[Any, Any]:
    import joblib  # type: ignore[import-not-found, import-untyped, unused-ignore]

    other = pickle.loads((folder / "model.pkl").read_bytes())
    found = joblib.load(folder / "model.joblib")
    assert (other._y == np.arange(64) * 3).all()
    return found._fit_X, found._y[:16]


def onnx(folder: Path) -> tuple[Any, Any]:
    import onnx  # type: ignore[import-not-found, unused-ignore]
    from onnx import numpy_helper

    big, small = (numpy_helper.to_array(item) for item in onnx.load(folder / "model.onnx").graph.initializer)
    return big, small


def keras(folder: Path) -> tuple[Any, Any]:
    import keras  # type: ignore[import-not-found, unused-ignore]

    old = keras.models.load_model(folder / "model.h5").layers[1].get_weights()
    new = keras.models.load_model(folder / "model.keras").layers[1].get_weights()
    assert all((a.view(np.uint32) == b.view(np.uint32)).all() for a, b in zip(old, new, strict=True))
    return new[0], new[1][:16]


def flax(folder: Path) -> tuple[Any, Any]:
    from flax import serialization  # type: ignore[import-not-found, unused-ignore]

    found = serialization.msgpack_restore((folder / "model.msgpack").read_bytes())["params"]
    return found["big"], found["small"]


def tensorflow(folder: Path) -> tuple[Any, Any]:
    """TensorFlow checks the CRC-32C of each tensor and of each block."""
    import tensorflow as tf  # type: ignore[import-not-found, import-untyped, unused-ignore]

    empty = {"big": make_story.BIG * 0, "small": SMALL * 0, "note": ""}
    found = tf.train.Checkpoint(**{name: tf.Variable(value) for name, value in empty.items()})
    found.read(str(folder / "variables")).assert_consumed()
    return found.big.numpy(), found.small.numpy()


CHECKS: list[Callable[[Path], tuple[Any, Any]]] = [torch, gguf, hdf5, joblib, onnx, keras, flax, tensorflow]


def main(folder: Path) -> None:
    """Open the files of the libraries that are here."""
    for check in CHECKS:
        try:
            big, small = check(folder)
        except ImportError as error:
            sys.stdout.write(f"{check.__name__}: {error}\n")
            continue
        assert np.ascontiguousarray(big).tobytes() == BIG, check.__name__
        assert (np.asarray(small).ravel() == SMALL).all(), check.__name__
        sys.stdout.write(f"{check.__name__}: both changes are there\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
