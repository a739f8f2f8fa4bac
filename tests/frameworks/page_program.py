"""Runs the quick start below one heading of ``training.md`` in the current directory, as a user's program."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import theta

PAGE = Path(theta.__file__).parent / "docs" / "training.md"


def block(heading: str) -> str:
    """Return the first Python block below ``heading``."""
    section = PAGE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = re.search(r"^```python\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    assert found is not None, heading
    return found[1]


if __name__ == "__main__":
    program = Path("train.py")
    program.write_text(block(sys.argv[1]))
    runpy.run_path(str(program), run_name="__main__")  # a program of its own: nothing is there beforehand
