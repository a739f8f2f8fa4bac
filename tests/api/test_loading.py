"""``repo.load``: checkpoints as they were saved, and values read into the arrays of a program."""

from __future__ import annotations

import array
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

import theta
from tests.compat.inprocess import copied
from tests.support import Repo, frameworks
from theta.errors import FormatError, NoSuchTensorError, UsageError


@pytest.fixture(scope="module")
def repo(template: Repo, tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """A branch ``run`` with a model and the state of its optimizer."""
    repo = copied(template, tmp_path_factory.mktemp("load") / "repo")
    with theta.open(repo.path) as opened:
        opened.save({"m.safetensors": weights(), "sub/optimizer.pt": optimizer()}, ref="run", wait=True)
    return repo


@pytest.fixture(scope="module")
def opened(repo: Repo) -> Iterator[theta.Repository]:
    with theta.open(repo.path) as found:
        yield found


def weights() -> dict[str, Any]:
    random = np.random.default_rng(0)
    return {
        "a.weight": random.standard_normal((6, 4)).astype(np.float32),
        "a.bias": random.standard_normal(4).astype(ml_dtypes.bfloat16),
        "b": np.arange(5),
    }


def optimizer() -> dict[str, Any]:
    state = {n: {"step": np.array(n, np.float32), "exp_avg": np.full((3, 2), n, np.float32)} for n in (0, 1)}
    return {
        "state": state,
        "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "params": [0, 1], "x": None}],
    }


def same(found: Any, wanted: Any) -> bool:
    """Return whether two objects are equal, arrays bit by bit."""
    if isinstance(wanted, np.ndarray):
        return (found.dtype, found.shape, found.tobytes()) == (wanted.dtype, wanted.shape, wanted.tobytes())
    if isinstance(wanted, dict):
        return list(found) == list(wanted) and all(same(found[key], wanted[key]) for key in wanted)
    if isinstance(wanted, (list, tuple)):
        return type(found) is type(wanted) and all(map(same, found, wanted))
    return bool(found == wanted)


def test_what_was_saved_comes_back(opened: theta.Repository) -> None:
    found = opened.load("run", "sub/optimizer.pt")
    assert same(found, optimizer())
    found["state"][0]["exp_avg"][:] = 0
    assert same(opened.load("run", "sub/optimizer.pt"), optimizer())
    model = opened.load("run", "m.safetensors")
    assert same({name: model[name] for name in weights()}, weights())
    assert len(model) == len(weights())


def test_names_choose_what_is_read(opened: theta.Repository) -> None:
    assert sorted(opened.load("run", "m.safetensors", "a.*")) == ["a.bias", "a.weight"]
    found = opened.load("run", "sub/optimizer.pt", "*.exp_avg")
    assert same(found, {f"state.{n}.exp_avg": optimizer()["state"][n]["exp_avg"] for n in (0, 1)})
    with pytest.raises(theta.errors.NoSuchTensorError, match="nothing"):
        opened.load("run", "m.safetensors", "nothing")


def test_arrays_are_filled_in_place(opened: theta.Repository) -> None:
    wanted = weights()
    out = {name: np.zeros_like(value) for name, value in wanted.items()}
    held = dict(out)
    assert opened.load("run", "m.safetensors", out=out) is out
    assert same(out, wanted)
    assert all(out[name] is held[name] for name in out)
    nested = {"state": {1: {"exp_avg": np.zeros((3, 2), np.float32)}}}
    opened.load("run", "sub/optimizer.pt", out=nested)
    assert (nested["state"][1]["exp_avg"] == 1).all()


def test_only_the_named_arrays_are_filled(opened: theta.Repository) -> None:
    out = {name: np.zeros_like(value) for name, value in weights().items()}
    opened.load("run", "m.safetensors", "a.*", out=out)
    assert same(out, weights() | {"b": np.zeros(5, np.int64)})


def test_any_memory_that_can_be_written_is_filled(opened: theta.Repository) -> None:
    transposed = np.zeros((4, 6), np.float32).T
    strided = np.zeros((12, 8), np.float32)[::-2, ::2]
    column = np.zeros((6, 4, 3), np.float32)[:, :, 1]
    for there in (transposed, strided, column):
        opened.load("run", "m.safetensors", out={"a": {"weight": there}})
        assert (there == weights()["a.weight"]).all()
    buffer = array.array("q", [0] * 5)
    opened.load("run", "m.safetensors", out={"b": buffer})
    assert list(buffer) == [0, 1, 2, 3, 4]


class Foreign:
    """An array of a library that has DLPack alone."""

    def __init__(self) -> None:
        self.there = np.zeros(5, np.int64)

    def __dlpack__(self, **options: Any) -> Any:
        return self.there.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.there.__dlpack_device__()


def test_an_array_of_another_library_is_filled_by_dlpack(opened: theta.Repository) -> None:
    """Before 2.3 numpy writes to no array that it has by DLPack, which may be one that is never changed."""
    foreign = Foreign()
    if np.lib.NumpyVersion(np.__version__) >= "2.3.0":
        opened.load("run", "m.safetensors", out={"b": foreign})
        assert foreign.there.tolist() == [0, 1, 2, 3, 4]
    else:
        with pytest.raises(UsageError, match="cannot be written to") as caught:
            opened.load("run", "m.safetensors", out={"b": foreign})
        assert caught.value.hint == "numpy 2.3 or newer may write to it"


def test_a_tensor_is_not_read_into_a_broadcast_array(opened: theta.Repository) -> None:
    tensor = opened["run:m.safetensors"]["a.weight"]
    with pytest.raises(UsageError, match="share memory"):
        tensor.into(as_strided(np.zeros(4, np.float32), (6, 4), (0, 4)))


def _frozen(value: Any) -> Any:
    value.flags.writeable = False
    return value


@pytest.mark.parametrize(
    ("out", "error", "said"),
    [
        ({"b": np.zeros(5, np.int32)}, FormatError, "'b' is int64 [5], the array is int32 [5]"),
        ({"b": np.zeros((5, 1), np.int64)}, FormatError, "the array is int64 [5, 1]"),
        ({"c": np.zeros(5, np.int64)}, NoSuchTensorError, "run:m.safetensors has no tensor 'c'"),
        ({}, NoSuchTensorError, "no array"),
        ({"a": {"weight": np.zeros((6, 4), np.float32)}}, UsageError, "out names 'a.weight' twice"),
        ({"b": 3}, UsageError, "'b' is of type int, not an array to read into"),
        ({"b": bytes(40)}, UsageError, "cannot be written to"),
        ({"b": _frozen(np.zeros(5, np.int64))}, UsageError, "cannot be written to"),
        (
            {"b": as_strided(np.zeros(1, np.int64), (5,), (0,))},
            UsageError,
            "'b' has elements that share memory",
        ),
        ({"b": as_strided(np.zeros(5, np.int64), (5,), (4,))}, UsageError, "share memory"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_filled(
    opened: theta.Repository, out: dict[str, Any], error: type[Exception], said: str
) -> None:
    first = np.zeros((6, 4), np.float32)
    with pytest.raises(error) as caught:
        opened.load("run", "m.safetensors", out={"a.weight": first, **out} if out else {})
    assert said in str(caught.value)
    assert not first.any()


def test_a_file_of_tensors_is_no_object(opened: theta.Repository) -> None:
    with pytest.raises(FormatError, match="tensors, not an object"):
        opened["run:m.safetensors"].object()


def test_tensors_of_torch_are_for_those_who_have_it(opened: theta.Repository) -> None:
    if "torch" not in sys.modules:
        with pytest.raises(UsageError, match="torch is not imported"):
            opened.load("run", "m.safetensors", framework="torch")


def test_a_partial_clone_fetches_what_it_fills_and_no_more(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.git("config", "uploadpack.allowFilter", "true")
    repo.git("config", "uploadpack.allowAnySHA1InWant", "true")
    with theta.open(repo.path.as_uri()) as remote:
        lacking = ["rev-list", "--objects", "--missing=print", "run"]

        def missing() -> int:
            told = Repo(remote.path).git(*lacking).splitlines()
            return sum(line.startswith("?") for line in told)

        out = {"a.bias": np.zeros(4, ml_dtypes.bfloat16)}
        remote.load("run", "m.safetensors", out=out)
        assert same(out["a.bias"], weights()["a.bias"])
        before = missing()
        assert before
        remote.load("run", "m.safetensors", out=out)
        assert missing() == before
        assert same(remote.load("run", "sub/optimizer.pt"), optimizer())
        assert missing() < before


@pytest.mark.frameworks
def test_torch_opens_the_state_of_its_optimizer_and_goes_on_bit_by_bit(
    opened: theta.Repository, tmp_path: Path
) -> None:
    frameworks.need("torch")
    torch = importlib.import_module("torch")
    torch.manual_seed(0)

    def made() -> tuple[Any, Any, Any]:
        model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        return model, optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)

    def train(model: Any, optimizer: Any, scheduler: Any) -> None:
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(16, 4)).square().mean().backward()
            optimizer.step()
            scheduler.step()

    first = made()
    train(*first)
    state = {
        "model": first[0].state_dict(),
        "optimizer": first[1].state_dict(),
        "scheduler": first[2].state_dict(),
        "rng": torch.get_rng_state(),
        "half": torch.ones(3, dtype=torch.bfloat16),
    }
    opened.save({"state.pt": state}, ref="torch", wait=True)
    train(*first)
    place = tmp_path / "state.pt"
    Repo(opened.path).theta("export", "torch:state.pt", "-o", str(place))
    for found in (opened.load("torch", "state.pt", framework="torch"), torch.load(place, weights_only=True)):
        second = made()
        for part, name in zip(second, ("model", "optimizer", "scheduler"), strict=True):
            part.load_state_dict(found[name])
        torch.set_rng_state(found["rng"])
        assert torch.equal(found["half"], state["half"])
        train(*second)
        for mine, other in zip(first[0].state_dict().values(), second[0].state_dict().values(), strict=True):
            assert torch.equal(mine, other)
    out = {"half": torch.zeros(3, dtype=torch.bfloat16), "model": {"0": {"weight": torch.zeros(4, 8).t()}}}
    opened.load("torch", "state.pt", out=out)
    assert torch.equal(out["half"], state["half"])
    assert torch.equal(out["model"]["0"]["weight"], found["model"]["0.weight"])
