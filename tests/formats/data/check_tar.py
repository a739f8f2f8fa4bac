"""Checks that torch opens the tar archives that the tests make by hand.

Run with torch 2.13 from the top of the repository: ``python -m tests.formats.data.check_tar``.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch  # type: ignore[import-not-found, unused-ignore]

from tests.formats.test_torch_tar import N, W, archive


def main() -> None:
    """Load one and compare all values."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tar"
        path.write_bytes(archive())
        found = torch.load(path, weights_only=False)
    assert (found["w"].numpy() == W.reshape(3, 4).T).all()
    assert (found["n"][0].numpy() == N).all()
    assert found["part"].tolist() == [[6, 7], [8, 9]] and found["step"] == 9
    assert isinstance(W, np.ndarray)
    sys.stdout.write(f"torch {torch.__version__} opens the archive\n")


if __name__ == "__main__":
    main()
