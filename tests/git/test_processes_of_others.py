"""Other processes, as theta finds them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.support import Repo
from theta.git import processes
from theta.porcelain.workspace.session import Session


def test_a_process_that_ended_and_is_not_reaped_is_gone() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert processes.exists(child.pid)
    assert child.stdin is not None
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert Path(f"/proc/{child.pid}").exists()
    assert not processes.exists(child.pid)
    child.wait()


def test_a_process_of_another_machine_is_not_judged_by_its_id() -> None:
    """On a shared file system: it counts as running for a day."""
    mark = processes.this()
    pid, started, machine, host = mark.split()
    now, long_ago = time.time(), time.time() - 2 * 86_400
    assert processes.is_alive(mark, now) and processes.is_alive(mark, long_ago)
    elsewhere = f"999999999 1 00000000 {int(host, 16) ^ 1:08x}"
    assert processes.is_alive(elsewhere, now)
    assert not processes.is_alive(elsewhere, long_ago)
    assert not processes.is_alive(
        f"{pid} {started} {int(machine, 16) ^ 1:08x} {host}", now
    )  # before a reboot
    assert processes.is_alive(f"{pid} {started}", now)  # as an earlier version wrote it
    assert not processes.is_alive("999999999 1", now)
    assert not processes.is_alive("", now)


def test_the_journal_of_a_command_of_another_machine_stays_until_it_is_old(repo: Repo) -> None:
    private = repo.path / ".git" / "theta"
    private.mkdir(exist_ok=True)
    note = {"token": "0" * 32, "started": time.time(), "owner": "999999999 1 00000000 00000000"}
    journal = private / "driving-elsewhere"
    journal.write_text(json.dumps(note))
    (repo.path / ".git" / "index.lock").touch()
    Session.here(repo.path).journal.heal()
    assert journal.exists()
    assert (repo.path / ".git" / "index.lock").exists()
    journal.write_text(json.dumps({**note, "started": time.time() - 2 * 86_400}))
    Session.here(repo.path).journal.heal()
    assert not journal.exists()
