"""Other processes, as theta finds them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import Repo
from theta import _fs
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
    pid, started, boot, space, host = mark.split()
    now, long_ago = time.time(), time.time() - 2 * 86_400
    assert processes.is_alive(mark, now) and processes.is_alive(mark, long_ago)
    assert not processes.is_alive(f"{pid} 1 {boot} {space} {host}", now)
    for elsewhere in (f"00000000 {space} {_other(host)}", f"00000000 00000000 {_other(host)}"):
        assert processes.is_alive(f"999999999 1 {elsewhere}", now)
        assert not processes.is_alive(f"999999999 1 {elsewhere}", long_ago)
    assert not processes.is_alive(f"{pid} {started} {_other(boot)} {space} {host}", now)  # before a reboot


def test_a_process_of_another_container_with_the_name_of_its_host_counts_as_running() -> None:
    """Its ids cannot be seen: what ``docker --network host`` runs has the host's name and boot."""
    _, _, boot, space, host = processes.this().split()
    now, long_ago = time.time(), time.time() - 2 * 86_400
    for elsewhere in (f"{boot} {_other(space)} {host}", f"{_other(boot)} {_other(space)} {host}"):
        assert processes.is_alive(f"999999999 1 {elsewhere}", now)
        assert not processes.is_alive(f"999999999 1 {elsewhere}", long_ago)


def test_the_marks_of_earlier_versions_are_read() -> None:
    """They have nothing about the machine, or the boot together with the namespace, and the host."""
    pid, started, _, _, host = processes.this().split()
    now, long_ago = time.time(), time.time() - 2 * 86_400
    assert processes.is_alive(f"{pid} {started}", long_ago)
    assert not processes.is_alive(f"{pid} 1", now)
    assert not processes.is_alive("999999999 1", now)
    assert processes.is_alive(f"{pid} {started} {_fs.machine()} {host}", long_ago)
    assert not processes.is_alive(f"999999999 1 {_fs.machine()} {host}", now)
    for name in (host, _other(host)):
        assert processes.is_alive(f"{pid} {started} {_other(_fs.machine())} {name}", now)
        assert not processes.is_alive(f"{pid} {started} {_other(_fs.machine())} {name}", long_ago)
    assert not processes.is_alive("", now)
    assert not processes.is_alive(pid, now)


def _other(digest: str) -> str:
    return f"{int(digest, 16) ^ 1:08x}"


@pytest.mark.parametrize(
    "where",
    ["00000000 00000000", f"00000000 00000000 {processes.this().split()[-1]}"],
    ids=["machine", "container"],
)
def test_the_journal_of_a_command_of_another_machine_stays_until_it_is_old(repo: Repo, where: str) -> None:
    """So does that of another container with the name of this host, or of the host itself."""
    private = repo.path / ".git" / "theta"
    private.mkdir(exist_ok=True)
    note = {"token": "0" * 32, "started": time.time(), "owner": f"999999999 1 {where}"}
    journal = private / "driving-elsewhere"
    journal.write_text(json.dumps(note))
    (repo.path / ".git" / "index.lock").touch()
    Session.here(repo.path).journal.heal()
    assert journal.exists()
    assert (repo.path / ".git" / "index.lock").exists()
    journal.write_text(json.dumps({**note, "started": time.time() - 2 * 86_400}))
    Session.here(repo.path).journal.heal()
    assert not journal.exists()
