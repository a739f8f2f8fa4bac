"""A program that trains with Lightning, from where the run in a repository is.

It prints the SHA-256 of the weights that it ends with.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import theta.lightning


class Module(lightning.LightningModule):
    """Two layers with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, 32), nn.Dropout(0.3), nn.ReLU(), nn.Linear(32, 1))

    def training_step(self, batch: Any, _number: int) -> Any:
        """Return the loss, whose randomness is that of the step."""
        torch.manual_seed(self.global_step)
        loss = nn.functional.mse_loss(self.layers(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        """Return AdamW."""
        return torch.optim.AdamW(self.parameters(), 0.01)


class Killed(Callback):
    """SIGKILL at a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """Kill this process."""
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def main(said: argparse.Namespace) -> None:
    """Train for 6 epochs of 4 steps."""
    lightning.seed_everything(7)
    xs = torch.randn(32, 16)
    data = DataLoader(TensorDataset(xs, xs.sum(1, keepdim=True)), 8)
    with theta.open(said.repo) as repo:
        io = theta.lightning.CheckpointIO(theta.Run(repo, "r1"))
        saves = ModelCheckpoint(said.out, monitor="loss", save_top_k=2, save_last=True, every_n_epochs=1)
        trainer = lightning.Trainer(
            accelerator="cpu",
            devices=said.ranks,
            strategy="ddp" if said.ranks > 1 else "auto",
            max_epochs=6,
            logger=False,
            enable_progress_bar=False,
            plugins=[io],
            callbacks=[saves, Killed(said.killed)],
        )
        module = Module()
        trainer.fit(module, data, ckpt_path=io.last)
        io.load_checkpoint(saves.best_model_path)
    weights = module.state_dict().values()
    words = hashlib.sha256(b"".join(one.numpy().tobytes() for one in weights)).hexdigest()
    kept = " ".join(sorted(os.path.basename(name) for name in saves.best_k_models))
    print(f"rank {trainer.global_rank}\nkept: {kept}\n{words}", flush=True)
    if said.ranks > 1:
        trainer.strategy.barrier()
        os._exit(0)  # as its groups are freed, gloo may wait for a thread that waits for the interpreter


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("repo")
    parser.add_argument("out")
    parser.add_argument("--killed", type=int, default=0)
    parser.add_argument("--ranks", type=int, default=1)
    main(parser.parse_args())
