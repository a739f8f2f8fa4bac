"""State of a real training, step by step, and its cost: bf16 weights, f32 masters, both moments.

    python bench/optimizer.py train MODEL_DIRECTORY DIRECTORY    AdamW, 60 steps; needs torch, transformers
    python bench/optimizer.py measure DIRECTORY                  stored bytes, alone and on earlier steps

The model is the 90 MB sentence encoder of ``bench/finetunes.py``, and so are the text and the loss.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

KINDS = ("bf16", "master", "exp_avg", "exp_avg_sq")
STEPS = (1, 20, 21, 30, 40, 41, 60)
PAIRS = ((20, 21), (40, 41), (20, 30), (40, 60))


def train(model_directory: str, directory: Path) -> None:
    """Train, and write the state of ``STEPS``, one file for each kind."""
    import torch
    from finetunes import batches
    from safetensors.torch import save_file
    from torch.nn import functional
    from transformers import AutoModel, AutoTokenizer

    torch.manual_seed(0)
    model = AutoModel.from_pretrained(model_directory, dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5)
    text = batches(AutoTokenizer.from_pretrained(model_directory), 0)
    for step in range(1, max(STEPS) + 1):
        batch = next(text)
        hidden, mask = model(**batch).last_hidden_state, batch["attention_mask"][..., None].float()
        pooled = functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
        first, second = pooled.chunk(2)
        loss = functional.cross_entropy(first @ second.T * 20, torch.arange(len(first)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step in STEPS:
            for kind in KINDS:
                save_file(_state(torch, model, optimizer, kind), directory / f"{step:03}.{kind}.safetensors")


def _state(torch: Any, model: Any, optimizer: Any, kind: str) -> dict[str, Any]:
    named = dict(model.named_parameters())
    if kind == "master":
        return {name: weights.detach().clone() for name, weights in named.items()}
    if kind == "bf16":
        return {name: weights.detach().to(torch.bfloat16) for name, weights in named.items()}
    found = {name: optimizer.state[weights] for name, weights in named.items() if weights in optimizer.state}
    return {name: moments[kind].clone() for name, moments in found.items()}


def measure(directory: Path) -> None:
    """Print what a step costs alone, and on the earlier one."""
    import theta

    with tempfile.TemporaryDirectory() as folder:
        for words in (("init", "-q"), ("config", "user.name", "bench"), ("config", "user.email", "b@e")):
            subprocess.run(["git", "-C", folder, *words], check=True)
        with theta.open(folder) as repo:
            for kind in KINDS:
                for number, pair in enumerate(PAIRS):
                    files = [directory / f"{step:03}.{kind}.safetensors" for step in pair]
                    ref = f"{kind}-{number}"
                    told = [repo.save({"m.safetensors": file}, ref=ref).result().stored for file in files]
                    parts = [
                        f"{size / file.stat().st_size:.4f}" for size, file in zip(told, files, strict=True)
                    ]
                    print(f"{kind} {pair[0]} {parts[0]} -> {pair[1]} {parts[1]}", flush=True)


def main() -> None:
    """Do what the command line asks for."""
    if sys.argv[1] == "train":
        train(sys.argv[2], Path(sys.argv[3]))
    else:
        measure(Path(sys.argv[2]))


if __name__ == "__main__":
    main()
