"""Pytrees as steps of a run: a safetensors file, whose tensors are named by the path to each leaf."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import jax
import numpy as np

from theta.api.background import Saving
from theta.api.checkpoint import Checkpoint
from theta.api.training_run import Run
from theta.errors import NotFoundError, UsageError

_FILE: Final = "state.safetensors"
_KINDS: Final = {bool: "b", int: "iu", float: "f", complex: "c"}
"""Type of Python -> numpy's letters for the dtypes that it has the values of."""

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")


def save(run: Run, step: int, tree: Any, metrics: Mapping[str, float] | None = None) -> Saving | None:
    """Save the leaves of ``tree`` as step ``step``, if that is due; return the future of its commit.

    Leaves are arrays, numbers, and keys of ``jax.random``.  They are copied to the host before this returns.

    Raises:
        theta.errors.UsageError: a leaf is none of these, or two have one name.
    """
    leaves: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = _name(path)
        if name in leaves:
            raise UsageError(f"two leaves are named {name}")
        leaves[name] = _array(leaf)
    return run.step(step, {_FILE: leaves}, metrics)


def restore(run: Run, like: T, step: int | None = None) -> tuple[int, T] | None:
    """Return the number and the tree of a step, by default the last one; None when the run has not begun.

    Args:
        run: the run.
        like: a tree of the same structure, whose leaves have the shapes and dtypes: the state that training
            begins with.  Leaves come back as what they are there: on the devices of its arrays, as numpy's
            arrays, as Python's numbers, as keys.
        step: the number of the step.

    Raises:
        theta.errors.NotFoundError: there is no such step, or it lacks a leaf.
        theta.errors.UsageError: a leaf has another shape or dtype, or is a number of another kind.
    """
    found = run.resume(step)
    if found is None:
        return None
    with found[_FILE] as stored:
        tree = jax.tree_util.tree_map_with_path(lambda path, leaf: _leaf(stored, _name(path), leaf), like)
    return found.step or 0, tree


def _name(path: Any) -> str:
    return str(jax.tree_util.keystr(path, simple=True, separator=".")) or "value"


def is_key(leaf: Any) -> bool:
    """Return whether ``leaf`` is a key of ``jax.random``."""
    return isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _array(leaf: Any) -> Any:
    """Return ``leaf`` as the array that is saved for it."""
    if is_key(leaf):
        return jax.random.key_data(leaf)
    return np.asarray(leaf) if isinstance(leaf, (bool, int, float, complex)) else leaf


def _leaf(stored: Checkpoint, name: str, like: Any) -> Any:
    """Return the leaf ``name`` as what ``like`` is."""
    if name not in stored:
        raise NotFoundError(f"the step has no leaf {name}", hint="was another tree saved?")
    values = stored[name].numpy()
    if not isinstance(like, (jax.Array, np.ndarray, np.generic)):
        return _number(name, values, type(like))
    there = jax.random.key_data(like) if is_key(like) else like
    if (values.shape, values.dtype) != (there.shape, there.dtype):
        raise _other(name, values, f"{there.dtype}{list(there.shape)}")
    if is_key(like):
        return jax.random.wrap_key_data(values, impl=jax.random.key_impl(like))
    if isinstance(like, jax.Array):
        return jax.device_put(values, like.sharding)
    return values if isinstance(like, np.ndarray) else values[()]


def _number(name: str, values: NDArray[Any], kind: type) -> Any:
    """Return a stored scalar as a Python number of type ``kind``, if it is one of that kind."""
    if values.shape != () or values.dtype.kind not in _KINDS.get(kind, ""):
        raise _other(name, values, kind.__name__)
    return values.item()


def _other(name: str, values: NDArray[Any], wanted: str) -> UsageError:
    return UsageError(f"the leaf {name} is {values.dtype}{list(values.shape)}, not {wanted}")
