"""Draw the pictures of the README and the tutorial: the page of a change, and the same in a terminal.

    python bench/pictures.py [theta/docs]

A model of twelve layers is fine-tuned in a temporary directory.  Chromium draws the page of ``theta diff
--html``, rich the output of ``theta diff --stats``.  Needs chromium, playwright and pillow.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
from contextlib import chdir, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image
from rich.console import Console
from rich.text import Text

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.support import Repo, environment, make_model, mutate, random_tensors  # noqa: E402
from tests.support.browser import browser  # noqa: E402
from theta.cli.app import run  # noqa: E402

LAYERS: Final = 12
KINDS: Final = {
    "self_attn.q_proj": (64, 64),
    "self_attn.k_proj": (64, 64),
    "self_attn.v_proj": (64, 64),
    "self_attn.o_proj": (64, 64),
    "mlp.gate_proj": (128, 64),
    "mlp.up_proj": (128, 64),
    "mlp.down_proj": (64, 128),
}
WIDTH: Final = 1180
HEIGHT: Final = 900
COLOURS: Final = 128


def story(place: Path) -> Repo:
    """Two commits: a base, and a fine-tune that moved later layers, and attention, more than the others."""
    repo = Repo.create(place)
    names = {
        f"model.layers.{layer}.{kind}.weight": shape
        for layer in range(LAYERS)
        for kind, shape in KINDS.items()
    }
    shapes = {"model.embed_tokens.weight": (256, 64), **names, "lm_head.weight": (256, 64)}
    make_model(repo.path / "model.safetensors", random_tensors(shapes))
    repo.theta("track", "*.safetensors")
    repo.theta("add", ".")
    repo.theta("commit", "-q", "-m", "base model")
    chance = np.random.default_rng(3)
    for name, shape in names.items():
        layer, attention = int(name.split(".")[2]), "attn" in name
        if layer < 2:
            continue  # frozen
        size = 0.00001 * 1.35**layer * (3 if attention else 1) * chance.lognormal(0, 0.35)
        change = size * chance.standard_normal((shape[0], 4)) @ chance.standard_normal((4, shape[1]))
        mutate(repo.path / "model.safetensors", name, partial(np.add, change.astype(np.float32)))
    mutate(repo.path / "model.safetensors", "lm_head.weight", partial(np.multiply, np.float32(1.01)))
    repo.theta("commit", "-q", "-am", "fine-tune on RTE")
    return repo


def page(repo: Repo, target: Path) -> None:
    """Write a picture of the page, the first tensor of the last layer opened."""
    repo.theta("diff", "HEAD~", "HEAD", "--html", "change.html")
    with browser() as program:
        view = program.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        view.goto((repo.path / "change.html").as_uri())
        view.wait_for_timeout(500)
        drawn = Image.open(io.BytesIO(view.screenshot()))
    drawn.convert("RGB").quantize(COLOURS, Image.Quantize.FASTOCTREE).save(target, optimize=True)


def screen(repo: Repo, target: Path) -> None:
    """Write the last lines of ``theta diff --stats`` as a terminal shows them."""
    console = Console(
        record=True, width=104, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    command = "theta diff HEAD~ HEAD --stats --tensor '*self_attn.[qv]_proj*'"
    console.print(f"$ {command}", markup=False, highlight=False, style="bold green")
    printed = io.StringIO()
    with chdir(repo.path), redirect_stdout(printed):
        assert (
            run(
                [
                    "--color",
                    "always",
                    "diff",
                    "HEAD~",
                    "HEAD",
                    "--stats",
                    "--tensor",
                    "*self_attn.[qv]_proj*",
                ]
            )
            == 0
        )
    console.print(Text.from_ansi(printed.getvalue()), soft_wrap=False)
    target.write_text(console.export_svg(title="theta diff --stats", unique_id="theta-diff"))


def main() -> None:
    """Write both pictures."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "theta" / "docs"
    with tempfile.TemporaryDirectory() as place:
        home = Path(place).resolve()
        environment.enter(home)
        os.environ.update(environment.dated(9))
        repo = story(home / "repo")
        page(repo, folder / "page-diff.png")
        screen(repo, folder / "terminal-diff.svg")


if __name__ == "__main__":
    main()
