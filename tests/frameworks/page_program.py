"""Runs a program that a page shows, the one in the file that is named, in the current directory."""

from __future__ import annotations

import runpy
import sys

if __name__ == "__main__":
    runpy.run_path(sys.argv[1], run_name="__main__")  # a program of its own: nothing is there beforehand
