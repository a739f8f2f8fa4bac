"""Draw the picture of the README: a real ``theta merge`` whose answers are typed by this script.

    python bench/merge_prompt.py [theta/docs/merge-prompt.svg]

A repository with two fine-tunes of one model is made in a temporary directory; the command runs in
this process, its screen is recorded by rich and written as SVG.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import chdir, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.support import Repo, environment, make_model, mutate, random_tensors  # noqa: E402
from theta.cli import prompting, terminal  # noqa: E402
from theta.cli.app import run  # noqa: E402

PICTURE: Final = ROOT / "theta" / "docs" / "merge-prompt.svg"
NAMES: Final = [f"decoder.layers.{layer}.self_attn.q_proj.weight" for layer in range(2)]
ANSWERS: Final = ["avg", "ties density=0.5"]


class Screen(io.TextIOBase):
    """Standard output that a recording console draws."""

    def __init__(self, screen: Console) -> None:
        self._screen = screen

    def write(self, text: str) -> int:
        """Draw ``text`` as it is."""
        self._screen.print(text, end="", markup=False, highlight=False)
        return len(text)


def fine_tuned(repo: Repo, seed: int, names: list[str]) -> None:
    """A commit in which ``names`` were trained a little."""
    generator = np.random.default_rng(seed)
    for name in names:
        noise = (0.004 * generator.standard_normal((64, 64))).astype(np.float32)
        mutate(repo.path / "model.safetensors", name, partial(np.add, noise))
    repo.theta("commit", "-q", "-am", f"fine-tune {seed}")


def story(place: Path) -> Repo:
    """Branches main and rte, which changed the same tensors, and each one of its own."""
    repo = Repo.create(place)
    tensors = random_tensors(dict.fromkeys([*NAMES, "embed.weight", "lm_head.weight"], (64, 64)))
    make_model(repo.path / "model.safetensors", tensors)
    repo.theta("track", "*.safetensors")
    repo.theta("add", ".")
    repo.theta("commit", "-q", "-m", "first model")
    repo.theta("switch", "-q", "-c", "rte")
    fine_tuned(repo, 1, [*NAMES, "lm_head.weight"])
    repo.theta("switch", "-q", "main")
    fine_tuned(repo, 2, [*NAMES, "embed.weight"])
    return repo


def record(repo: Repo) -> Console:
    """Run ``theta merge rte``, answer, and look at what came of it."""
    screen = Console(
        record=True, width=100, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    answers: Iterator[str] = iter(ANSWERS)

    def read(question: str) -> str:
        answer = next(answers)
        screen.print(question + answer, markup=False, highlight=False, style="bold")
        return answer

    prompting.rich_console = lambda *_, **__: screen
    prompting._line = read
    terminal.on_terminal = lambda: True
    with chdir(repo.path), redirect_stdout(Screen(screen)):
        shown(screen, "theta merge rte")
        assert run(["merge", "rte"]) == 0
        command = "git log -1 --format=%b"
        shown(screen, command)
        print(repo.git(*command.split()[1:]))
    return screen


def shown(screen: Console, command: str) -> None:
    """Draw a command line."""
    screen.print(f"$ {command}", markup=False, highlight=False, style="bold green")


def main() -> None:
    """Write the picture."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURE
    with tempfile.TemporaryDirectory() as place:
        home = Path(place).resolve()
        environment.enter(home)
        os.environ.update(environment.dated(9))
        screen = record(story(home / "repo"))
        target.write_text(screen.export_svg(title="theta merge", unique_id="theta-merge"))


if __name__ == "__main__":
    main()
