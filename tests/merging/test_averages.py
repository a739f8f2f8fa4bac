"""Means along the history: weights with reference values, exact sums, and each stored delta read once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support import Repo, make_model, read_model
from theta.errors import NotFoundError, UsageError
from theta.merging.averages import coefficients
from theta.porcelain.lineage import averaging
from theta.porcelain.lineage.averaging import AverageRequest
from theta.porcelain.workspace.session import Session
from theta.store.odb.objects import Objects

MODEL = "m.safetensors"
COUNT = 9
BF16 = ml_dtypes.bfloat16


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        ("uniform", [0.25, 0.25, 0.25, 0.25]),
        ("linear", [0.25, 0.25, 0.25, 0.25]),
        # w_i = (1 + cos(pi i / 4)) / 2 for i = 0..4, and its differences
        ("cosine", [0.14644661, 0.35355339, 0.35355339, 0.14644661]),
        # w_i = 1 - sqrt(i / 4)
        ("inv-sqrt", [0.5, 0.20710678, 0.15891862, 0.13397460]),
        ("wma", [0.1, 0.2, 0.3, 0.4]),
        ("ema:0.5", [0.125, 0.125, 0.25, 0.5]),
        ("ema:0", [0.0, 0.0, 0.0, 1.0]),
    ],
)
def test_versions_count_as_the_papers_have_it(shape: str, wanted: list[float]) -> None:
    np.testing.assert_allclose(coefficients(shape, 4), wanted, atol=1e-8)
    assert abs(sum(coefficients(shape, 100)) - 1) < 1e-12


@pytest.mark.parametrize("shape", ["", "ema", "ema:1", "ema:-1", "ema:x", "cosine:2", "square"])
def test_a_shape_that_is_none_is_refused(shape: str) -> None:
    with pytest.raises(UsageError):
        coefficients(shape, 4)


def version(number: int) -> dict[str, NDArray[np.generic]]:
    """A step of a training: two tensors move a little, one stays, and one counts."""
    start, moved = np.random.default_rng(0), np.random.default_rng(number + 1)
    first = start.standard_normal((160, 96)).astype("f4") + np.float32(0.02) * number
    second = start.standard_normal((128, 64)) + 1e-3 * number * moved.standard_normal((128, 64))
    frozen = start.standard_normal((16, 16)).astype("f4")
    return {"a": first, "b": second.astype(BF16), "frozen": frozen, "step": np.array([number])}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """A history of versions, with commits between that leave the model alone."""
    repo = Repo.create(tmp_path_factory.mktemp("averages") / "repo")
    repo.theta("track", "*.safetensors")
    for number in range(COUNT):
        make_model(repo.path / MODEL, version(number))
        if not number:
            repo.theta("add", ".")
        repo.theta("commit", "-qam", f"step {number}")
        if number % 5 == 2:
            repo.write("code.py", f"print({number})\n")
            repo.git("commit", "-qam", "code")
    return repo


@pytest.fixture
def trained(template: Repo, tmp_path: Path) -> Repo:
    """A copy of that repository."""
    return template.copy(tmp_path / "repo")


def mean(shape: str, numbers: range) -> dict[str, NDArray[np.generic]]:
    """The same mean by numpy, of files that are in memory."""
    found = dict(version(numbers[-1]))
    factors = coefficients(shape, len(numbers))
    for name in ("a", "b"):
        total = sum(f * version(n)[name].astype("f8") for f, n in zip(factors, numbers, strict=True))
        found[name] = np.asarray(total).astype("f4").astype(found[name].dtype)
    return found


@pytest.mark.parametrize("shape", ["uniform", "cosine", "ema:0.9"])
def test_a_committed_mean_is_that_of_numpy_and_is_computed_again(trained: Repo, shape: str) -> None:
    trained.theta("average", "HEAD~7..HEAD", "--shape", shape, "--commit", "-o", "mean.safetensors")
    commits = trained.git("log", "--format=%(trailers:key=Theta-Average,valueonly)", "-1").split()[4:]
    wanted = mean(shape, range(COUNT - len(commits), COUNT))
    for place in (MODEL, "mean.safetensors"):
        found = read_model(trained.path / place)
        assert {name: value.tobytes() for name, value in found.items()} == {
            name: value.tobytes() for name, value in wanted.items()
        }
    assert trained.git("status", "--porcelain", "--untracked-files=no") == ""
    trained.theta("fsck")
    assert "the same tensors" in trained.theta("average", "--replay", "HEAD").stdout
    trained.theta("average", "--replay", "HEAD~1", code=2)
    trained.write("other.py", "evil")
    trained.git("add", "other.py")
    trained.git("commit", "-q", "--amend", "--no-edit")
    assert "the same tensors" not in trained.theta("average", "--replay", "HEAD", code=1).stdout


def test_commits_that_leave_the_model_alone_do_not_count(trained: Repo) -> None:
    said = trained.theta("average", "HEAD~11..HEAD", "--shape", "wma", "--dry-run").stdout.split()
    assert len(said[::2]) == COUNT
    assert [float(one) for one in said[1::2]] == sorted(float(one) for one in said[1::2])
    assert len(trained.theta("average", "HEAD~11..HEAD", "--last", "3", "-n").stdout.splitlines()) == 3


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, int]]]:
    """The blobs that are read, and their bytes."""
    found: list[tuple[str, int]] = []
    before = Objects.chunk

    def noted(self: Objects, oid: str, *args: int) -> bytes | memoryview:
        data = before(self, oid, *args)
        found.append((oid, len(data)))
        return data

    monkeypatch.setattr(Objects, "chunk", noted)
    yield found


def test_what_is_stored_is_read_once(trained: Repo, tmp_path: Path, read: list[tuple[str, int]]) -> None:
    session = Session.here(trained.path)
    found = averaging.plan(session, AverageRequest(["main~11..main"]))
    averaging.write(session, found, tmp_path / "mean.safetensors", force=False)
    assert len(found.commits) == COUNT
    assert sum(size for _, size in read) <= 1.2 * sum(dict(read).values())


def test_a_version_that_counts_nothing_is_not_read(trained: Repo, tmp_path: Path) -> None:
    """0 times infinity is no number, and ``ema:0`` is the last version."""
    broken = version(3)
    broken["a"][0] = np.inf
    make_model(trained.path / MODEL, broken)
    trained.theta("commit", "-qam", "broken")
    make_model(trained.path / MODEL, version(5))
    trained.theta("commit", "-qam", "mended")
    out = tmp_path / "mean.safetensors"
    trained.theta("average", "HEAD~3..HEAD", "--shape", "ema:0", "-o", str(out))
    assert {name: value.tobytes() for name, value in read_model(out).items()} == {
        name: value.tobytes() for name, value in version(5).items()
    }


def test_a_malformed_trailer_is_told(trained: Repo) -> None:
    for number, text in enumerate(("--shape", "--shape 'x")):
        trained.git("commit", "-q", "--allow-empty", "-m", f"mean {number}", "-m", f"Theta-Average: {text}")
        assert "malformed" in trained.theta("average", "--replay", "HEAD", code=2).stderr


def test_versions_that_do_not_fit_are_refused(trained: Repo) -> None:
    make_model(trained.path / MODEL, {**version(3), "c": np.zeros(3, "f4")})
    trained.theta("commit", "-qam", "grown")
    for request, error in [
        (AverageRequest(["HEAD~3..HEAD"]), UsageError),
        (AverageRequest(["HEAD"]), UsageError),
        (AverageRequest(["HEAD..HEAD"]), UsageError),
        (AverageRequest(["nowhere"]), NotFoundError),
        (AverageRequest(["HEAD~2", "HEAD~1"], "other.safetensors"), NotFoundError),
    ]:
        with pytest.raises(error):
            averaging.plan(Session.here(trained.path), request)
    trained.write("code.py", "changed\n")
    assert "not committed" in trained.theta("average", "HEAD~4..HEAD~1", "--commit", code=1).stderr
