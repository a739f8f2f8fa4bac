"""Time and size of the page of a diff: ``python pages.py [--tensors N]``; needs chromium and playwright.

The data are synthetic: layers with experts, each tensor with all that a page has.  Prints the size of the
file, the seconds until it can be used (its table is there), and those of one sort and one search.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from theta.pages import document
from theta.porcelain.studies.diff_study import METRICS
from theta.porcelain.studies.pages_data import PageData, Section


def row(name: str, chance: random.Random) -> dict[str, Any]:
    """One tensor that changed."""
    return {
        "name": name,
        "status": "M",
        "shape": [1024, 4096],
        "dtype": "bf16",
        "bytes": 8 << 20,
        "stored": chance.randrange(1 << 20),
        "codecs": "dense + delta",
        "relative": chance.lognormvariate(-6, 2),
        "distance": chance.lognormvariate(-12, 2),
        "cosine": 1 - chance.lognormvariate(-12, 2),
        "changed": chance.random(),
        "largest": chance.lognormvariate(-4, 1),
        "lowest": -30,
        "counts": [chance.randrange(1 << 20) for _ in range(24)],
        "zeros": chance.randrange(1 << 20),
        "infinite": 0,
        "nans": 0,
        "rows": [(chance.randrange(1024), chance.random()) for _ in range(5)],
        "singular": [chance.random() for _ in range(16)],
        "effective_rank": chance.random() * 1000,
    }


def page(count: int) -> str:
    """Return the page of a diff of ``count`` tensors."""
    chance = random.Random(1)
    kinds = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj")
    names = [f"model.layers.{k // 250}.{kinds[k % 5]}.{k % 250 // 5}.weight" for k in range(count)]
    section = Section(
        "model.safetensors", f"{count} changed", (), METRICS, [row(name, chance) for name in names]
    )
    return document.html(PageData("diff", "old -> new", (), (section,)).as_json())


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tensors", type=int, default=20_000)
    count = parser.parse_args().tensors
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        file = Path(place) / "page.html"
        file.write_text(page(count))
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page()
        start = time.perf_counter()
        tab.goto(file.as_uri())
        tab.wait_for_selector("tbody tr")
        tab.evaluate("new Promise(requestAnimationFrame)")
        seconds = time.perf_counter() - start
        print(f"{count} tensors: {file.stat().st_size / 1e6:.1f} MB, usable after {seconds:.2f} s")
        for what, act in (
            ("sorted by name", lambda: tab.get_by_role("button", name="tensor").click()),
            ("searched", lambda: tab.get_by_role("searchbox").fill("layers.7 q_proj")),
        ):
            start = time.perf_counter()
            act()
            tab.evaluate("new Promise(requestAnimationFrame)")
            print(f"{what} in {time.perf_counter() - start:.2f} s")
        browser.close()


if __name__ == "__main__":
    main()
