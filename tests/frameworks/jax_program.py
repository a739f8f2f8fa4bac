"""A program that trains with JAX, from where the run in a repository is; it prints the weights' SHA-256."""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import theta.jax


def loss(weights: Any, x: Any, key: Any) -> Any:
    """Return the loss of a layer with dropout."""
    kept = jax.random.bernoulli(key, 0.7, (32,))
    return (((jnp.tanh(x @ weights["in"]) * kept) @ weights["out"] - x.sum(1, keepdims=True)) ** 2).mean()


def trained(state: Any) -> Any:
    """Return the state after one step of SGD with momentum."""
    key, data, drop = jax.random.split(state["key"], 3)
    slope = jax.grad(loss)(state["weights"], jax.random.normal(data, (8, 16)), drop)
    speed = jax.tree.map(lambda old, new: 0.9 * old + new.astype(old.dtype), state["speed"], slope)
    weights = jax.tree.map(lambda old, new: old - (0.01 * new).astype(old.dtype), state["weights"], speed)
    return {"weights": weights, "speed": speed, "key": key}


def beginning() -> Any:
    """Return the state before the first step: weights in bf16, momentum in f32, a key."""
    first, second, key = jax.random.split(jax.random.key(6), 3)
    weights = {"in": jax.random.normal(first, (16, 32)), "out": jax.random.normal(second, (32, 1))}
    weights = jax.tree.map(lambda one: one.astype(jnp.bfloat16), weights)
    return {"weights": weights, "speed": jax.tree.map(lambda one: one * jnp.float32(0), weights), "key": key}


def main(said: argparse.Namespace) -> None:
    """Make 10 steps, and save each third one."""
    with theta.open(said.repo) as repo:
        run = theta.Run(repo, "r1", every=theta.steps(3))
        advance = jax.jit(trained)
        begin, state = theta.jax.restore(run, beginning()) or (0, beginning())
        for step in range(begin + 1, 11):
            state = advance(state)
            saving = theta.jax.save(run, step, state)
            if saving is not None:
                saving.result()
            if step == said.killed:
                os.kill(os.getpid(), signal.SIGKILL)
    weights = jax.tree.leaves(state["weights"])
    print(hashlib.sha256(b"".join(np.asarray(one).tobytes() for one in weights)).hexdigest())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("repo")
    parser.add_argument("--killed", type=int, default=0)
    main(parser.parse_args())
