"""Other processes, as theta finds them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from theta.git import processes


def test_a_process_that_ended_and_is_not_reaped_is_gone() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert processes.exists(child.pid)
    assert child.stdin is not None
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert Path(f"/proc/{child.pid}").exists()
    assert not processes.exists(child.pid)
    child.wait()
