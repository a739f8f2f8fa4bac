"""A program that trains by accelerate, on any number of processes, from where the run in a repository is.

The first process prints the SHA-256 of the weights.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import sys

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn

import theta.hf


def main(said: argparse.Namespace) -> None:
    """Make 10 steps, and save each third one."""
    set_seed(3)
    accelerator = Accelerator(cpu=True)
    model = nn.Sequential(nn.Linear(16, 32), nn.Dropout(0.3), nn.Linear(32, 1))
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    model, optimizer, schedule = accelerator.prepare(model, optimizer, schedule)
    with theta.open(said.repo) as repo:
        run = theta.Run(repo, "r1")
        begin = theta.hf.load_state(accelerator, run) or 0
        for step in range(begin + 1, 11):
            x = torch.randn(8, 16) * random.random()
            accelerator.backward((model(x) - x.sum(1, keepdim=True)).square().mean())
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            if step == said.killed:
                os.kill(os.getpid(), signal.SIGKILL)
            if step % 3 == 0:
                saving = theta.hf.save_state(accelerator, run, step, {"rate": schedule.get_last_lr()[0]})
                if saving is not None:
                    saving.result()
    if accelerator.is_main_process:
        weights = accelerator.unwrap_model(model).state_dict().values()
        print(hashlib.sha256(b"".join(one.numpy().tobytes() for one in weights)).hexdigest())
    accelerator.wait_for_everyone()  # gloo aborts a rank whose neighbour is gone
    accelerator.end_training()
    if accelerator.num_processes > 1:
        sys.stdout.flush()
        os._exit(0)  # as its groups are freed, gloo may wait for a thread that waits for the interpreter


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("repo")
    parser.add_argument("--killed", type=int, default=0)
    main(parser.parse_args())
