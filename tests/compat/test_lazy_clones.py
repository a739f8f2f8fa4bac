"""``theta clone --lazy``: the history travels, and tensors when they are asked for, over real http."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import theta as api
from tests.compat.agreement import assert_history, assert_index
from tests.compat.inprocess import committed, theta
from tests.compat.story import MODEL, digest, edit
from tests.support import Repo, make_model, random_tensors, read_model, sha256
from tests.support.http_git import Server, served
from theta.errors import ExitCode
from theta.porcelain.commands import clones

SHAPES = {f"layer.{number}.weight": (128, 256) for number in range(6)}
ONE = "layer.1.weight"
TENSOR_BYTES = 128 * 256 * 4
VERSIONS = 5
OTHER = "other.safetensors"


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Versions of a model in each of which all tensors changed, and one of another."""
    repo = Repo.create(tmp_path_factory.mktemp("lazy") / "origin")
    theta(repo, "track", "*.safetensors")
    for seed in range(VERSIONS):
        make_model(repo.path / MODEL, random_tensors(SHAPES, seed))
        if not seed:
            make_model(repo.path / OTHER, random_tensors({"w": (64, 64)}))
        theta(repo, "add", ".")
        theta(repo, "commit", "-q", "-m", f"version {seed}")
    theta(repo, "switch", "-q", "-c", "side")
    committed(repo, (ONE, 2.0))
    theta(repo, "switch", "-q", "main")
    committed(repo, (ONE, 1.0), ("layer.2.weight", 1.0))
    for key in ("allowFilter", "allowAnySHA1InWant"):
        repo.git("config", f"uploadpack.{key}", "true")
    repo.git("config", "http.receivepack", "true")
    return repo


@pytest.fixture(scope="module")
def remote(origin: Repo) -> Iterator[tuple[str, Server]]:
    """The URL of ``origin`` on a web server."""
    with served(origin.path.parent) as (url, server):
        yield f"{url}/origin/.git", server


@pytest.fixture
def lazy(remote: tuple[str, Server], tmp_path: Path) -> Repo:
    """A lazy clone."""
    repo = Repo(tmp_path / "lazy")
    repo.path.mkdir()
    theta(repo, "clone", "-q", "--lazy", remote[0], ".")
    return repo


def is_manifest(repo: Repo, path: str = MODEL) -> bool:
    return (repo.path / path).read_bytes().startswith(b"theta checkpoint 1\n")


def test_history_moves_without_tensors(remote: tuple[str, Server], origin: Repo, lazy: Repo) -> None:
    """All versions take on the wire below a hundredth of what they take in the repository."""
    before = remote[1].sent
    theta(lazy, "clone", "-q", "--lazy", remote[0], "../again")
    assert remote[1].sent - before < origin.stored_bytes() / 100
    assert lazy.git("rev-list", "--count", "HEAD") == origin.git("rev-list", "--count", "HEAD")
    assert is_manifest(lazy) and is_manifest(lazy, OTHER)
    assert lazy.git("status", "--porcelain") == "" == theta(lazy, "status", "--porcelain").out
    theta(lazy, "log", "--oneline")
    assert remote[1].sent - before < origin.stored_bytes() / 100


def test_one_tensor_is_one_round_trip(remote: tuple[str, Server], lazy: Repo) -> None:
    server = remote[1]
    before = server.requests, server.sent
    theta(lazy, "cat", f"HEAD:{MODEL}#layer.3.weight")
    assert server.requests - before[0] == 1
    assert TENSOR_BYTES / 2 < server.sent - before[1] < TENSOR_BYTES * 2
    before = server.requests, server.sent
    theta(lazy, "cat", f"HEAD:{MODEL}#layer.3.weight")
    assert server.requests == before[0]
    with api.open(lazy.path) as repo:
        assert repo[f"HEAD:{MODEL}"]["layer.4.weight"][:2].numpy().shape == (2, 256)
    assert server.requests - before[0] == 1


def test_a_comparison_and_several_tensors_are_one_round_trip(remote: tuple[str, Server], lazy: Repo) -> None:
    """The manifests of older versions come before, in one more."""
    server = remote[1]
    for words, most in ((("diff",), 1), (("diff", "--stats"), 1), (("diff", "--stats"), 0)):
        before = server.requests
        theta(lazy, *words, "HEAD~1", "origin/side")
        assert server.requests - before <= most
    with api.open(lazy.path) as repo:
        before, start = server.requests, server.sent
        found = repo.load("HEAD", MODEL, names="layer.[45].weight")
        assert (len(found), server.requests - before) == (2, 1)
        assert server.sent - start < 2.5 * TENSOR_BYTES


def test_a_file_is_filled_in_when_asked_for_and_kept_so(
    remote: tuple[str, Server], origin: Repo, lazy: Repo
) -> None:
    want = digest(origin)
    theta(lazy, "switch", "-q", "--detach", "HEAD~1")
    lazy.git("checkout", "-q", "main")
    assert is_manifest(lazy)
    before = remote[1].requests
    theta(lazy, "restore", MODEL)
    assert remote[1].requests - before == 1
    assert sha256(lazy.path / MODEL) == want
    for program in (lazy.git, lambda *args: theta(lazy, *args)):
        program("checkout", "-q", "origin/side")
        assert read_model(lazy.path / MODEL).keys() == SHAPES.keys()
        assert is_manifest(lazy, OTHER)
        program("checkout", "-q", "main")
        assert sha256(lazy.path / MODEL) == want
    assert lazy.git("status", "--porcelain") == ""


def test_work_goes_on_beside_what_is_not_here(origin: Repo, lazy: Repo) -> None:
    lazy.write("new.py", "x = 1\n")
    theta(lazy, "add", ".")
    theta(lazy, "commit", "-q", "-m", "code")
    assert is_manifest(lazy)
    assert lazy.git("diff", "--stat", "HEAD~1", "--", MODEL) == ""
    theta(lazy, "restore", MODEL)
    want = edit(lazy, ONE)
    theta(lazy, "commit", "-qam", "trained")
    theta(lazy, "push", "-q", "origin", "HEAD:refs/heads/trained")
    assert_index(lazy)
    assert_history(lazy)
    assert digest(lazy) == want
    theta(origin, "restore", "-q", "-s", "trained", "-W", MODEL)
    assert digest(origin) == want
    theta(origin, "restore", MODEL)


def test_a_bisection_tells_what_it_leaves_out_and_fills_what_was_asked_for(
    remote: tuple[str, Server], origin: Repo, lazy: Repo
) -> None:
    """A test of the file would find a manifest in each step."""
    ends = (origin.git("rev-parse", "HEAD"), origin.git("rev-list", "--max-parents=0", "HEAD"))
    done = theta(lazy, "bisect", "start", *ends)
    assert f"{MODEL} is a manifest in each step" in done.err
    assert is_manifest(lazy)
    theta(lazy, "bisect", "reset")
    theta(lazy, "restore", MODEL)
    assert f"{MODEL} is a manifest" not in theta(lazy, "bisect", "start", *ends).err
    assert not is_manifest(lazy)
    theta(lazy, "bisect", "reset")


def test_a_merge_fetches_the_tensors_of_both_sides_only(remote: tuple[str, Server], lazy: Repo) -> None:
    """The manifests come in one request, the tensors that differ in another."""
    server = remote[1]
    before = server.requests, server.sent
    theta(lazy, "merge", "-q", "--no-edit", "-X", "average", "origin/side")
    assert server.requests - before[0] == 2
    assert server.sent - before[1] < 4 * TENSOR_BYTES
    assert is_manifest(lazy)
    theta(lazy, "restore", MODEL)
    shift = read_model(lazy.path / MODEL)[ONE] - random_tensors(SHAPES, VERSIONS - 1)[ONE]
    assert np.allclose(shift, 1.5, atol=1e-5)


@pytest.mark.parametrize("program", ["git", "theta"])
def test_a_push_to_a_host_that_lacks_the_rest_is_refused(
    remote: tuple[str, Server], lazy: Repo, tmp_path: Path, program: str
) -> None:
    """Plain git would fetch every tensor of the history and upload it."""
    empty = tmp_path / "empty.git"
    lazy.git("init", "-q", "--bare", str(empty))
    lazy.git("remote", "add", "host", empty.as_uri())
    before = remote[1].sent
    run = lazy.try_git if program == "git" else lambda *args: lazy.theta(*args, code=None)
    done = run("push", "-q", "host", "main")
    assert done.returncode != 0
    assert "host lacks" in done.stderr and "not in this lazy clone either" in done.stderr, done.stderr
    assert remote[1].sent - before < TENSOR_BYTES
    assert Repo(empty).git("for-each-ref") == ""


def test_it_may_be_sent_on_when_that_is_wanted(lazy: Repo, tmp_path: Path) -> None:
    empty = tmp_path / "empty.git"
    lazy.git("init", "-q", "--bare", str(empty))
    lazy.git("-c", "theta.pushMissing=true", "push", "-q", empty.as_uri(), "main~4:refs/heads/main")
    assert Repo(empty).git("rev-parse", "main") == lazy.git("rev-parse", "main~4")
    Repo(empty).fsck()


def test_a_push_of_what_the_host_has_is_not_refused(origin: Repo, lazy: Repo, tmp_path: Path) -> None:
    full = tmp_path / "full.git"
    origin.git("clone", "-q", "--bare", ".", str(full))
    lazy.git("push", "-q", full.as_uri(), "main:refs/heads/again")
    assert Repo(full).git("rev-parse", "again") == lazy.git("rev-parse", "main")


def test_a_lazy_clone_of_a_directory(origin: Repo, tmp_path: Path) -> None:
    """Git ignores a filter where it copies files; the transport of a server does not."""
    place = tmp_path / "clone"
    result = clones.clone(clones.CloneRequest.of(str(origin.path), place, lazy=True))
    assert (result.code, result.place) == (0, place)
    assert is_manifest(Repo(place))
    assert Repo(place).stored_bytes() < origin.stored_bytes() / 50


def test_a_slice_without_a_remote_says_so(lazy: Repo) -> None:
    lazy.git("remote", "set-url", "origin", "http://127.0.0.1:1/gone")
    done = lazy.theta("restore", MODEL, code=int(ExitCode.MISSING_OBJECTS))
    assert "not here yet" in done.stderr
    assert is_manifest(lazy)


LARGE = {f"layer.{number}.weight": (1024, 1024) for number in range(36)}


def tuned(path: Path) -> None:
    """Add a matrix of rank 4 to each tensor."""
    random = np.random.default_rng(99)
    tensors = read_model(path)
    for name, old in tensors.items():
        one, two = (random.standard_normal(size) for size in ((len(old), 4), (4, old.shape[1])))
        tensors[name] = (old + one @ two * 1e-3).astype(old.dtype)
    make_model(path, tensors)


@pytest.mark.campaign
def test_a_long_history_of_a_large_model(tmp_path: Path) -> None:
    """Ten versions of 75 MB: under 1 MB before the first tensor; a LoRA commit is under 2 % of the model."""
    origin = Repo.create(tmp_path / "origin")
    theta(origin, "track", "*.safetensors")
    for seed in range(10):
        make_model(origin.path / MODEL, random_tensors(LARGE, seed, np.float16))
        theta(origin, "add", ".")
        theta(origin, "commit", "-q", "-m", f"version {seed}")
    for key in ("uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant", "http.receivepack"):
        origin.git("config", key, "true")
    lazy = Repo(tmp_path / "lazy")
    lazy.path.mkdir()
    with served(tmp_path) as (url, server):
        theta(lazy, "clone", "-q", "--lazy", f"{url}/origin/.git", ".")
        print(f"clone: {server.sent} bytes in {server.requests} requests")
        assert server.sent < 1_000_000
        before = server.sent, server.requests
        theta(lazy, "cat", f"HEAD:{MODEL}#layer.3.weight")
        print(f"one tensor: {server.sent - before[0]} bytes in {server.requests - before[1]}")
        assert server.requests - before[1] == 1
        theta(lazy, "restore", MODEL)
        tuned(lazy.path / MODEL)
        theta(lazy, "commit", "-qam", "LoRA")
        received = server.received
        theta(lazy, "push", "-q", "origin", "HEAD:refs/heads/lora")
        sent = server.received - received
        print(f"push: {sent} bytes, {sent / (lazy.path / MODEL).stat().st_size:.2%} of the model")
        assert sent < 0.02 * (lazy.path / MODEL).stat().st_size
