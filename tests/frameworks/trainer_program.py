"""A program that trains with transformers' Trainer, from where the run in a repository is.

It prints the SHA-256 of the weights that it ends with.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

import theta.hf


class Model(nn.Module):
    """Two layers with dropout, so that the random states matter."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, 32), nn.Dropout(0.3), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, x: Any, labels: Any) -> dict[str, Any]:
        """Return what a Trainer asks for."""
        found = self.layers(x)
        return {"loss": nn.functional.mse_loss(found, labels), "logits": found}


class Signal(TrainerCallback):
    """A signal to this very process at a step."""

    def __init__(self, name: str, step: int) -> None:
        self.name, self.step = name, step

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Send it."""
        if state.global_step == self.step:
            os.kill(os.getpid(), getattr(signal, self.name))


def arguments(out: str) -> TrainingArguments:
    """24 steps, a checkpoint every 4, of which 2 stay."""
    return TrainingArguments(
        out,
        max_steps=24,
        save_steps=4,
        save_total_limit=2,
        eval_strategy="steps",
        eval_steps=4,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        learning_rate=0.01,
        logging_steps=4,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        seed=5,
    )


def main(said: argparse.Namespace) -> None:
    """Train, from where the run is."""
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(7)
    data = [{"x": x, "labels": x.sum().reshape(1)} for x in torch.randn(64, 16)]
    args = arguments(said.out)
    with theta.open(said.repo) as repo:
        every = theta.preempted() if said.signal == "SIGTERM" else None
        run = theta.Run(repo, "r1", every=every, push=said.push)
        hooks = [Signal(said.signal, said.at), theta.hf.Callback(run, wait=True)]
        trainer = Trainer(Model(), args, train_dataset=data, eval_dataset=data[:8], callbacks=hooks)
        trainer.train(resume_from_checkpoint=theta.hf.resume(run, said.out))
    weights = trainer.accelerator.unwrap_model(trainer.model).state_dict()
    print(hashlib.sha256(b"".join(w.numpy().tobytes() for w in weights.values())).hexdigest())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("repo")
    parser.add_argument("out")
    parser.add_argument("--signal", default="")
    parser.add_argument("--at", type=int, default=0)
    parser.add_argument("--push")
    main(parser.parse_args())
