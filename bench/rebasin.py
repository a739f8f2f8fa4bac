"""The barrier between models trained from different seeds, before and after ``theta merge --align``.

    python -P bench/rebasin.py [mlp|transformer|chain] [--way weights|transport|orthogonal]

Trains two networks on the same data (needs torch and transformers; minutes on two cores),
commits them on two branches, and lets theta put the second one's units in the order of the first's.  The
barrier is how far the loss on the way between both rises above the line between their losses (Frankle et al.,
arXiv:1912.05671); Git Re-Basin (arXiv:2209.04836) measures alignment by it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

State = dict[str, torch.Tensor]
Loss = Callable[[nn.Module], float]
_STEPS = [n / 10 for n in range(11)]


def mlp(seed: int) -> tuple[nn.Module, Loss]:
    """Train a perceptron with three hidden layers on clusters that no line separates."""
    inputs, labels = _clusters(20_000, 0)
    torch.manual_seed(seed)
    model = _Layers([32, 256, 256, 256, 10])
    best = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.1)
    rounds = 1500
    plan = torch.optim.lr_scheduler.CosineAnnealingLR(best, rounds)
    for _ in range(rounds):
        some = torch.randint(len(inputs), (256,))
        loss = nn.functional.cross_entropy(model(inputs[some]), labels[some])
        best.zero_grad()
        loss.backward()
        best.step()
        plan.step()
    held = _clusters(5_000, 1)
    return model, lambda one: _loss(one, *held)


class _Layers(nn.Module):
    """A chain of linear layers, named ``layers.N``."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        for layer in self.layers[:-1]:
            values = torch.relu(layer(values))
        return self.layers[-1](values)


def _clusters(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    where = torch.Generator().manual_seed(7)
    centres = torch.randn(60, 32, generator=where) * 1.2
    rng = torch.Generator().manual_seed(seed)
    which = torch.randint(60, (count,), generator=rng)
    return centres[which] + torch.randn(count, 32, generator=rng), which % 10


def _loss(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> float:
    with torch.no_grad():
        return float(nn.functional.cross_entropy(model(inputs), labels))


def transformer(seed: int) -> tuple[nn.Module, Loss]:
    """Train a Llama in small, whose heads of queries share heads of keys, on theta's own pages."""
    from transformers import LlamaConfig, LlamaForCausalLM

    text = "".join(sorted(p.read_text() for p in (Path(__file__).parent.parent / "theta/docs").glob("*.md")))
    ids = {letter: n for n, letter in enumerate(sorted(set(text)))}
    data = torch.tensor([ids[letter] for letter in text])
    held, data = data[: len(data) // 10], data[len(data) // 10 :]
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**_shape(), vocab_size=len(ids)))
    best = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.3)
    rounds = int(os.environ.get("ROUNDS", "1500"))
    plan = torch.optim.lr_scheduler.OneCycleLR(best, 2e-3, rounds)
    for _ in range(rounds):
        batch = _windows(data, torch.randint(len(data) - 65, (32,)))
        loss = model(input_ids=batch, labels=batch).loss
        best.zero_grad()
        loss.backward()
        best.step()
        plan.step()
    windows = _windows(held, torch.arange(0, len(held) - 65, 64)[:200])

    def measure(one: nn.Module) -> float:
        with torch.no_grad():
            return float(one(input_ids=windows, labels=windows).loss)

    return model, measure


def chain(seed: int) -> tuple[nn.Module, Loss]:
    """Train a Llama in small on a Markov chain of second order, of which no sequence is seen often."""
    from transformers import LlamaConfig, LlamaForCausalLM

    rng = torch.Generator().manual_seed(1000)
    pool, windows = _sequences(20_000, rng), _sequences(300, torch.Generator().manual_seed(77))
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**_shape(), vocab_size=_LETTERS))
    best = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=0.3)
    plan = torch.optim.lr_scheduler.OneCycleLR(best, 3e-3, 2000)
    for _ in range(2000):
        batch = pool[torch.randint(len(pool), (32,))]
        loss = model(input_ids=batch, labels=batch).loss
        best.zero_grad()
        loss.backward()
        best.step()
        plan.step()

    def measure(one: nn.Module) -> float:
        with torch.no_grad():
            return float(one(input_ids=windows, labels=windows).loss)

    return model, measure


_LETTERS = 24


def _sequences(count: int, rng: torch.Generator) -> torch.Tensor:
    """Return sequences of 32 letters; each letter depends on the two before it."""
    odds = torch.randn(_LETTERS, _LETTERS, _LETTERS, generator=torch.Generator().manual_seed(5)) * 2
    sums = torch.softmax(odds, -1).cumsum(-1)
    found = torch.randint(_LETTERS, (count, 32), generator=rng)
    chances = torch.rand(count, 32, generator=rng)
    for at in range(2, 32):
        before = sums[found[:, at - 2], found[:, at - 1]]
        found[:, at] = (chances[:, at, None] > before).sum(-1).clamp(max=_LETTERS - 1)
    return found


_SMALL: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
}


def _shape() -> dict[str, Any]:
    return {name: value for name, value in _SMALL.items() if name != "model_type"}


def _windows(data: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    return torch.stack([data[start : start + 64] for start in starts.tolist()])


# -- what is measured --------------------------------------------------------------------------


def aligned(ours: State, theirs: State, config: dict[str, Any], way: str) -> State:
    """Return theirs in the order of ours, as ``theta merge --align WAY -X theirs`` leaves it."""
    with tempfile.TemporaryDirectory() as place:
        here = Path(place)

        def run(*words: str) -> None:
            subprocess.run(words, cwd=here, check=True, capture_output=True)

        def commit(state: State) -> None:
            save_file({name: one.contiguous() for name, one in state.items()}, here / "m.safetensors")
            run(*theta, "commit", "-qam", "a model")

        theta = [sys.executable, "-m", "theta"]
        run("git", "init", "-qb", "main", ".")
        run(*theta, "track", "*.safetensors")
        (here / "config.json").write_text(json.dumps(config))
        run("git", "add", ".")
        run("git", "commit", "-qm", "a configuration")
        save_file({name: one.contiguous() for name, one in ours.items()}, here / "m.safetensors")
        run("git", "switch", "-qc", "other")
        run(*theta, "add", ".")
        commit(theirs)
        run("git", "switch", "-q", "main")
        save_file({name: one.contiguous() for name, one in ours.items()}, here / "m.safetensors")
        run(*theta, "add", ".")
        commit(ours)
        run(*theta, "merge", "other", "--align", way, "-X", "theirs")
        return load_file(here / "m.safetensors")


def barrier(model: nn.Module, loss: Loss, ours: State, theirs: State) -> float:
    """Return how far the loss between both rises above the line between their losses."""
    found = []
    for part in _STEPS:
        model.load_state_dict({name: (1 - part) * ours[name] + part * theirs[name] for name in ours})
        found.append(loss(model))
    line = [found[0] + part * (found[-1] - found[0]) for part in _STEPS]
    print("  loss on the way:", " ".join(f"{one:.3f}" for one in found))
    return max(one - straight for one, straight in zip(found, line, strict=True))


def _apart(ours: State, theirs: State) -> float:
    """Return the distance between two models as a share of the length of ours."""
    lengths = [
        sum(float((one[name] ** 2).sum()) for name in one)
        for one in (ours, {name: ours[name] - theirs[name] for name in ours})
    ]
    return float((lengths[1] / lengths[0]) ** 0.5)


def main() -> None:
    """Measure both kinds, or the one that is named."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kinds", nargs="*", default=["mlp", "transformer", "chain"])
    parser.add_argument("--way", default="weights")
    asked = parser.parse_args()
    for kind in asked.kinds:
        train = {"mlp": mlp, "transformer": transformer, "chain": chain}[kind]
        (first, loss), (second, _) = train(1), train(2)
        ours, theirs = (
            {name: value.clone() for name, value in one.state_dict().items()} for one in (first, second)
        )
        print(f"{kind}: {_apart(ours, theirs):.3f} apart")
        before = barrier(first, loss, ours, theirs)
        again = aligned(ours, theirs, {} if kind == "mlp" else _SMALL, asked.way)
        print(f"  {_apart(ours, again):.3f} apart")
        after = barrier(first, loss, ours, again)
        print(f"  barrier {before:.4f} before, {after:.4f} after: {after / before:.3f} of it")


if __name__ == "__main__":
    main()
