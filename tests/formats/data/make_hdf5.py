"""Writes the HDF5 files beside it with h5py (3.16): twice, with other values.

``weights`` is laid out as Keras 3 lays out ``model.weights.h5``, with the attributes and groups it makes;
``latest`` uses the newest structures of the format.  Run by hand (``python make_hdf5.py``).
"""

from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-not-found, import-untyped, unused-ignore]
import numpy as np

HERE = Path(__file__).parent
KINDS = ("f2", "f8", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", ">f4", "c8", "S3", "bool")


def fill(file: Any, rng: np.random.Generator, layers: int, names: tuple[str, ...]) -> None:
    """Groups and datasets."""
    for number in range(layers):
        group = file.create_group(f"layers/dense_{number}/vars")
        group["0"] = rng.standard_normal((3, 4), np.float32)
        group["1"] = rng.standard_normal(4, np.float32)
        file[f"layers/dense_{number}"].attrs["name"] = f"dense_{number}"
    kinds = file.create_group("kinds")
    for kind in names:
        kinds[kind.replace(">", "big_")] = rng.integers(0, 2, (2, 3)).astype(kind)
    kinds["scalar"] = rng.standard_normal()


def main() -> None:
    """Write all files."""
    for seed in (1, 2):
        rng = np.random.default_rng(seed)
        with h5py.File(HERE / f"chunked.{seed}.h5", "w") as file:
            file.create_dataset("grid", data=rng.standard_normal((38, 30), np.float32), chunks=(4, 4))
            file.create_dataset("whole", data=rng.standard_normal((8, 8)), chunks=(8, 8))
            file.create_dataset("packed", data=np.arange(9.0), chunks=(3,), shuffle=True)
        rng = np.random.default_rng(seed)
        with h5py.File(HERE / f"weights.{seed}.h5", "w") as file:
            fill(file, rng, 12, KINDS)
            file["tied"] = file["layers/dense_0/vars/0"]
            file["soft"] = h5py.SoftLink("/kinds/f8")
            file["text"] = "of variable length"
            file["empty"] = np.zeros((0, 3))
            file["none"] = h5py.Empty("f4")
            file.create_dataset("chunked", data=np.arange(8), chunks=(4,))
            file.create_dataset("compressed", data=np.arange(8), compression="gzip")
            file["records"] = np.zeros(2, [("a", "<f4"), ("b", "<i8")])
        with h5py.File(HERE / f"latest.{seed}.h5", "w", libver="latest") as file:
            fill(file, rng, 3, KINDS[:5])


if __name__ == "__main__":
    main()
