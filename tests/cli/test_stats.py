"""``theta diff --stats`` on terminals: rows come while others are read, and no number is broken."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.checks import on_terminal
from tests.support import Repo, make_model, random_tensors
from theta.porcelain.look import comparison, diffing
from theta.porcelain.look.diffing import Sides
from theta.porcelain.workspace.session import Session

MODEL = "model.safetensors"
LONG = "encoder.layer.{}.attention.output.LayerNorm.with.a.rather.long.name.weight"
NUMBERS = re.compile(r"\d+\.\d{3}% +\d\.\d{6} +\d+\.\d% +[\d.e+-]+$")


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Repo:
    """Six layers that changed, one of which has more rows than before."""
    repo = Repo.create(tmp_path_factory.mktemp("stats") / "repo")
    repo.theta("track", "*.safetensors")
    tensors = random_tensors({LONG.format(k): (1200, 40) for k in range(6)}, 1)
    for by in (1.0, 1.001):
        changed: dict[str, Any] = {name: value * np.float32(by) for name, value in tensors.items()}
        if by != 1:
            changed[LONG.format(2)] = np.concatenate([changed[LONG.format(2)]] * 2)
        make_model(repo.path / MODEL, changed)
        repo.theta("add", ".")
        repo.theta("commit", "-q", "-m", str(by))
    return repo


def lines(repo: Repo, width: int) -> list[str]:
    """The lines of the report on a terminal, without colours and what progress left behind."""
    shown = on_terminal(repo, "diff", "--stats", "HEAD~", "HEAD", env={"COLUMNS": str(width)})
    found = re.split(r"\r?\n", re.sub(r"\x1b\[[0-9;]*m", "", shown))
    return [line.rpartition("\r")[2].rpartition("\x1b[K")[2] for line in found]


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_numbers_are_never_broken(tuned: Repo, width: int) -> None:
    found = lines(tuned, width)
    rows = [line for line in found if line.startswith(("M  enc", "S  enc"))]
    assert len(rows) == 6
    assert all(NUMBERS.search(row) for row in rows)
    laid_out = [line for line in found if line in rows or line.startswith("   ")]
    assert len(laid_out) > len(rows)
    assert all(len(line) <= width for line in laid_out)
    assert len({line.index("%") for line in rows}) == 1
    names = "".join(line.split()[1] if line in rows else line.strip() for line in found)
    assert LONG.format(3) in names
    by = "\N{MULTIPLICATION SIGN}"
    assert (width >= 80) == any(f"1200{by}40 → 2400{by}40" in line for line in found)


def test_the_map_fits_too(tuned: Repo) -> None:
    for width in (60, 80):
        found = lines(tuned, width)
        last = next(line for line in found if line.startswith("layers 0 to 5"))
        assert len(last) <= width


def test_a_row_is_there_before_the_next_tensor_is_read(tuned: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    measured: Callable[..., Any] = diffing.numbers

    def numbers(session: Session, item: Any, change: Any) -> Any:
        heard.append(f"read {change.name}")
        return measured(session, item, change)

    monkeypatch.setattr(diffing, "numbers", numbers)
    session = Session.here(tuned.path)
    request = comparison.DiffRequest(Sides("HEAD~", "HEAD"), numbers=True)
    (item,) = comparison.diff(session, request).checkpoints
    comparison.tensors(session, request, item, None, lambda change, _: heard.append(f"told {change.name}"))
    wanted = [(f"read {LONG.format(k)}", f"told {LONG.format(k)}") for k in range(6)]
    assert heard == [word for pair in wanted for word in pair]
