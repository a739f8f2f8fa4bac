"""accelerate, Keras and JAX: a run that is killed and resumed ends with the weights of one that was not."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import theta
from tests.support import Repo, frameworks
from theta.errors import NotFoundError, UsageError

pytestmark = pytest.mark.frameworks

TWO = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")


@dataclass(frozen=True)
class Program:
    """A program that trains: the modules it needs, where it is killed, which steps the whole run has."""

    needs: tuple[str, ...]
    file: str
    killed: int
    steps: tuple[int, ...]
    launcher: tuple[str, ...] = ()


PROGRAMS = {
    "accelerate": Program(("accelerate",), "accelerate_program.py", 8, (3, 6, 9)),
    "accelerate on two": Program(("accelerate",), "accelerate_program.py", 8, (3, 6, 9), TWO),
    "Keras": Program(("keras",), "keras_program.py", 4, (1, 2, 3, 4, 5, 6)),
    "JAX": Program(("jax",), "jax_program.py", 8, (3, 6, 9)),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_it_ends_with_the_same_weights(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = PROGRAMS[name]
    frameworks.need(*program.needs)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    straight, killed = Repo.create(tmp_path / "straight"), Repo.create(tmp_path / "killed")
    digest = frameworks.printed(program.file, straight.path, launcher=program.launcher)
    words = (killed.path, "--killed", program.killed)
    code = frameworks.start(program.file, *words, launcher=program.launcher).returncode
    assert code == (1 if program.launcher else -signal.SIGKILL)
    assert frameworks.printed(program.file, killed.path, launcher=program.launcher) == digest
    for repo in (straight, killed):
        assert [path.name for path in (repo.path / ".git" / "theta").rglob("tmp_theta_*")] == []
        with theta.open(repo.path) as opened:
            found = [item.step for item in theta.Run(opened, "r1").steps()]
        assert set(found) <= set(program.steps)
        assert found[-1] == program.steps[-1]


@pytest.fixture
def run(repo: Repo) -> Iterator[theta.Run]:
    with theta.open(repo.path) as opened:
        yield theta.Run(opened, "r1")


def test_leaves_come_back_as_what_they_were(run: theta.Run) -> None:
    frameworks.need("jax")
    import jax
    import jax.numpy as jnp
    import numpy as np

    import theta.jax
    from theta.jax import pytrees

    tree: dict[str, Any] = {
        "layers": [{"w": jnp.arange(6.0).reshape(2, 3)}, {"w": jnp.ones(4, jnp.bfloat16)}],
        "key": jax.random.key(3),
        "count": 7,
        "rate": 0.25,
        "host": np.arange(3),
        "scalar": np.float32(1.5),
    }
    assert theta.jax.restore(run, tree) is None
    theta.jax.save(run, 4, tree, {"loss": 2.0})
    run.close()
    empty = jax.tree.map(lambda leaf: leaf * 0 if not pytrees.is_key(leaf) else jax.random.key(0), tree)
    found = theta.jax.restore(run, empty)
    assert found is not None
    step, again = found
    assert (step, again["count"], again["rate"]) == (4, 7, 0.25)
    assert type(again["count"]) is int
    assert jax.random.key_data(again["key"]).tolist() == jax.random.key_data(tree["key"]).tolist()
    for old, new in zip(jax.tree.leaves(tree["layers"]), jax.tree.leaves(again["layers"]), strict=True):
        assert isinstance(new, jax.Array)
        assert (new.dtype, new.tolist()) == (old.dtype, old.tolist())
    assert isinstance(again["host"], np.ndarray)
    assert again["scalar"] == np.float32(1.5)


def test_a_tree_of_another_structure_is_refused(run: theta.Run) -> None:
    frameworks.need("jax")
    import jax.numpy as jnp

    import theta.jax

    theta.jax.save(run, 1, {"w": jnp.zeros(3)})
    run.close()
    with pytest.raises(NotFoundError, match="has no leaf v"):
        theta.jax.restore(run, {"v": jnp.zeros(3)})
    with pytest.raises(UsageError, match="the leaf w is float32"):
        theta.jax.restore(run, {"w": jnp.zeros(4)})
    with pytest.raises(UsageError, match=r"two leaves are named a\.b"):
        theta.jax.save(run, 2, {"a": {"b": 1}, "a.b": 2})


def test_a_number_of_another_kind_is_refused_not_cut(run: theta.Run) -> None:
    """A stored 0.5 is no int, and a key is none of another shape."""
    frameworks.need("jax")
    import jax

    import theta.jax

    theta.jax.save(run, 1, {"rate": 0.5, "count": 3, "on": True, "key": jax.random.key(1)})
    run.close()
    others = ({"rate": 0}, {"rate": False}, {"count": True}, {"count": 0.5}, {"on": 1}, {"key": 0})
    for like in (*others, {"rate": 1j}, {"key": jax.random.split(jax.random.key(0), 2)}):
        with pytest.raises(UsageError, match=f"the leaf {next(iter(like))} is .*, not "):
            theta.jax.restore(run, like)
    found = theta.jax.restore(run, {"rate": 1.0, "count": 0, "on": False})
    assert found == (1, {"rate": 0.5, "count": 3, "on": True})


def test_all_processes_load_the_step_that_the_first_one_finds(
    run: theta.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that lands while they look is not the one of some of them."""
    frameworks.need("accelerate", "transformers")
    from theta.hf import accelerate_state

    sent: list[Any] = []
    monkeypatch.setattr(accelerate_state, "broadcast_object_list", lambda known: sent.extend(known))
    assert accelerate_state.agreed(run) is None
    run.save(1, {"a": b"1"}).result()
    first = accelerate_state.agreed(run)
    run.save(2, {"a": b"2"}).result()
    monkeypatch.setattr(
        accelerate_state, "broadcast_object_list", lambda known: known.__setitem__(0, sent[1])
    )
    assert first is not None
    assert accelerate_state.agreed(run) == first
    assert first.read("a") == b"1"
    sent[1] = None
    assert accelerate_state.agreed(run) is None
