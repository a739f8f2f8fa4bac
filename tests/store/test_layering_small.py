"""Small tensors are added, committed, cleaned and smudged without numba, which is slow to start."""

import sys

from tests.support import Repo, make_model, random_tensors, sha256
from theta.store.write.layer_plan import SMALL, SMALL_IN_ALL, worth_comparing

SHAPES = {"a.weight": (40, 50), "b.bias": (3,)}
TRACED = {"PYTHONVERBOSE": "1"}
"""Tells what importlib imports too, as PYTHONPROFILEIMPORTTIME does not."""
GIT = ("git",)
THETA = (sys.executable, "-m", "theta")


def imported(repo: Repo, *command: str) -> set[str]:
    """The packages that ``command`` and the Pythons that it started imported."""
    done = repo.run(*command, env=TRACED)
    assert done.returncode == 0, done.stderr
    rows = (line for line in done.stderr.splitlines() if line.startswith("import '"))
    return {row.split("'")[1].partition(".")[0] for row in rows}


def test_small_tensors_import_no_numba(repo: Repo) -> None:
    assert "theta" in imported(repo, *THETA, "track", "*.safetensors")
    path = repo.path / "m.safetensors"
    digests = []
    for seed, program in enumerate((THETA, GIT)):
        digests.append(sha256(make_model(path, random_tensors(SHAPES, seed))))
        added = imported(repo, *program, "add", ".")
        assert added >= {"theta", "numpy", "theta_native", "zstandard"}
        committed = imported(repo, *program, "commit", "-q", "-m", "m")
        assert not (added | committed) & {"numba", "llvmlite"}
    for program, revision, digest in ((GIT, "main~1", digests[0]), (THETA, "main", digests[1])):
        switched = imported(repo, *program, "checkout", "-q", revision)
        assert "theta_native" in switched
        assert not switched & {"numba", "llvmlite"}
        assert sha256(path) == digest


def test_which_tensors_are_compared_with_bases() -> None:
    assert not worth_comparing([])
    assert not worth_comparing([SMALL] * (SMALL_IN_ALL // SMALL))
    assert worth_comparing([3, SMALL + 1])
    assert worth_comparing([SMALL_IN_ALL // 16] * 17)
