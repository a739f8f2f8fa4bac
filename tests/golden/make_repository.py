"""How ``repository-1.bundle`` was made; run by hand, once for each version of the format.

``python -m tests.golden.make_repository DIR`` writes the bundle and the digests of every version
beside this file. A bundle that was released is never made anew: decoders must read it for ever.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from tests.support import Repo, sha256

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Tensors = dict[str, NDArray[Any]]

HERE = Path(__file__).parent
NAME = "repository-1"


def base() -> Tensors:
    """A model with names and types that are easily got wrong."""
    rng = np.random.default_rng(1)

    def normal(*shape: int) -> NDArray[Any]:
        return rng.normal(0, 0.02, shape).astype("f4")

    return {
        "embed.weight": normal(300, 48).astype(ml_dtypes.bfloat16),
        "layers.0.q.weight": normal(128, 128).astype(ml_dtypes.bfloat16),
        "layers.0.k.weight": normal(96, 96),
        "layers.0.v.weight": normal(64, 64).astype("f2"),
        "f64": rng.normal(size=(5, 3)),
        "tied": normal(8, 8),
        "tied.copy": normal(8, 8) * 0,
        "zeros": np.zeros((64, 4), "f4"),
        "empty": np.zeros((0, 4), "f4"),
        "scalar": np.array(3, "i8"),
        "ids": np.arange(100, dtype="i4"),
        "mask": rng.random(33) < 0.5,
        "a/b..c.\u00e9\n con": np.array([np.nan, -0.0, np.inf, 1e-45], "f4"),
    }


def story(repo: Repo) -> None:
    """Commits that between them use every codec, a merge and other containers."""
    rng = np.random.default_rng(2)
    tensors = base()
    repo.theta("track", "*.safetensors", "*.pt", "*.blob")
    (repo.path / "noise.blob").write_bytes(rng.bytes(600_000))
    shutil.copyfile(HERE.parent / "formats" / "data" / "checkpoint.1.pt", repo.path / "state.pt")
    _commit(repo, tensors, "base", {"format": "pt"})
    wide = tensors["layers.0.q.weight"].astype("f4") + rng.normal(0, 0.03, (128, 2)) @ rng.normal(
        0, 0.03, (2, 128)
    )
    _commit(repo, tensors | {"layers.0.q.weight": wide.astype(ml_dtypes.bfloat16)}, "low rank")
    tensors["layers.0.k.weight"] = tensors["layers.0.k.weight"] + rng.normal(0, 1e-5, (96, 96)).astype("f4")
    tensors["ids"] = np.where(np.arange(100) % 40 == 7, 9999, tensors["ids"]).astype("i4")
    _commit(repo, tensors, "delta and sparse")
    tensors["embed.weight"] = np.delete(tensors["embed.weight"], [7, 8, 200], axis=0)
    tensors["layers.0.v.weight"] = (
        tensors["layers.0.v.weight"] * np.linspace(0.5, 1.5, 64, dtype="f2")
    ).astype("f2")
    _commit(repo, tensors, "rows and scaled")
    repo.git("checkout", "-q", "-b", "side")
    _commit(repo, tensors | {"zeros": np.ones((64, 4), "f4")}, "side", {"step": "rows and scaled"})
    repo.git("checkout", "-q", "main")
    tensors["layers.0.k.weight"] = tensors["layers.0.k.weight"].astype(ml_dtypes.bfloat16)
    shutil.copyfile(HERE.parent / "formats" / "data" / "checkpoint.2.pt", repo.path / "state.pt")
    _commit(repo, tensors, "cast", {"step": "rows and scaled"})
    repo.theta("merge", "side", "-m", "merge")


def _commit(repo: Repo, tensors: Tensors, message: str, metadata: dict[str, str] | None = None) -> None:
    save_file(tensors, repo.path / "model.safetensors", metadata or {"step": message})
    repo.theta("add", ".")
    repo.theta("commit", "-m", message)


def digests(repo: Repo) -> dict[str, dict[str, str]]:
    """Commit -> path -> SHA-256, of every checkpoint in every commit."""
    found = {}
    for commit in repo.git("rev-list", "--all", "--topo-order").split():
        repo.theta("checkout", "-q", commit)
        found[commit] = {path: sha256(repo.path / path) for path in repo.theta("ls-files").stdout.split()}
    repo.theta("checkout", "-q", "main")
    return found


def codecs_used(repo: Repo) -> set[str]:
    """The codecs that the repository's tensors name."""
    used: set[str] = set()
    for row in repo.git("rev-list", "--all", "--objects").splitlines():
        if row.endswith("/@tensor"):
            record = json.loads(repo.git("cat-file", "blob", row.split()[0]))
            used |= {layer["codec"] for layer in record["layers"]}
    return used


def main(place: str) -> None:
    """Write the bundle and its digests."""
    repo = Repo.create(Path(place))
    story(repo)
    (HERE / f"{NAME}.json").write_text(json.dumps(digests(repo), indent=1) + "\n")
    repo.git("bundle", "create", "-q", str(HERE / f"{NAME}.bundle"), "main", "side")
    print(sorted(codecs_used(repo)))


if __name__ == "__main__":
    main(sys.argv[1])
