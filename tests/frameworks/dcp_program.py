"""A program that trains a sharded model and saves by torch.distributed.checkpoint.

Started by ``torch.distributed.run``, on any number of ranks.  The first prints the SHA-256 of the weights.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import sys
from typing import Any

import torch
from torch import distributed, nn
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import theta.torch


def built() -> tuple[Any, Any]:
    """Return a model whose parameters are sharded over all ranks, and its optimizer."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(16, 37), nn.ReLU(), nn.Linear(37, 2)).to(torch.bfloat16)
    fully_shard(model, mesh=init_device_mesh("cpu", (distributed.get_world_size(),)))
    return model, torch.optim.AdamW(model.parameters(), 0.01)


def state_of(model: Any, optimizer: Any, step: int) -> dict[str, Any]:
    """Return all that is to be saved."""
    weights, moments = get_state_dict(model, optimizer)
    return {"model": weights, "optimizer": moments, "step": step, "note": {"seed": "three"}}


def digest(model: Any) -> str:
    """Return the SHA-256 of all weights, whole."""
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        found.update(name.encode() + value.full_tensor().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def main(said: argparse.Namespace) -> None:
    """Train to the end of the steps, from where the run is."""
    model, optimizer = built()
    with theta.open(said.repo) as repo:
        run = theta.Run(repo, "r1", keep=theta.last(2), push=said.push)
        state, begin = state_of(model, optimizer, 0), 0
        if run.resume() is not None:
            dcp.load(state, storage_reader=theta.torch.StorageReader(run))
            set_state_dict(
                model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"]
            )
            begin = state["step"]
        distributed.barrier()  # all have seen which step is the last
        writer = theta.torch.StorageWriter(run)
        for step in range(begin + 1, said.steps + 1):
            train(model, optimizer, step)
            if step == said.killed:
                os.kill(os.getpid(), signal.SIGKILL)
            if step % 3 == 0:
                writer.metrics = {"loss": 1 / step}
                dcp.save(state_of(model, optimizer, step), checkpoint_id=step, storage_writer=writer)
    words = digest(model)
    if distributed.get_rank() == 0:
        print(words)


def train(model: Any, optimizer: Any, step: int) -> None:
    """Make one step, on the data of this step: the same for every rank."""
    numbers = torch.Generator().manual_seed(step)
    x = torch.randn(8, 16, generator=numbers).to(torch.bfloat16)
    model(x).float().square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("repo")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--killed", type=int, default=0)
    parser.add_argument("--push")
    distributed.init_process_group("gloo")
    main(parser.parse_args())
    distributed.barrier()  # gloo aborts a rank whose neighbour is gone
    distributed.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)  # as its groups are freed, gloo may wait for a thread that waits for the interpreter
