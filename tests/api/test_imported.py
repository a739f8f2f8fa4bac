"""Modules that a thread imports while another asks for them."""

import sys
import threading
from pathlib import Path

import pytest

from theta.lazy import imported

SLOW = "import time, slow_import_gate\nslow_import_gate.begun.set()\nslow_import_gate.go.wait(10)\nlast = 1\n"
GATE = "import threading\nbegun, go = threading.Event(), threading.Event()\n"


def test_a_module_counts_when_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that ended while a thread imported the kernels' cache was taken for a bug of theta."""
    (tmp_path / "slow_import.py").write_text(SLOW)
    (tmp_path / "slow_import_gate.py").write_text(GATE)
    monkeypatch.syspath_prepend(tmp_path)
    import slow_import_gate  # type: ignore[import-not-found]

    thread = threading.Thread(target=lambda: __import__("slow_import"))
    thread.start()
    assert slow_import_gate.begun.wait(10)
    assert "slow_import" in sys.modules
    assert imported("slow_import") is None
    slow_import_gate.go.set()
    thread.join()
    assert imported("slow_import").last == 1
    assert imported("no_such_module") is None
