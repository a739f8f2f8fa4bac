"""Output that cannot be written: other encodings, closed and full streams, signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.compat.story import MODEL, edit, new_model
from tests.support import Repo, make_model, random_tensors

THETA = f"{sys.executable} -m theta"
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
ENCODINGS = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "strict": {"PYTHONIOENCODING": "ascii:strict"},
    "C locale": ASCII,
}


@pytest.fixture
def changed(repo: Repo) -> Repo:
    """A repository with a changed checkpoint."""
    repo.theta("track", "*.safetensors")
    new_model(repo)
    repo.theta("add", ".")
    repo.theta("commit", "-m", "model")
    edit(repo, "layer.1.weight")
    return repo


def shell(repo: Repo, line: str, **env: str) -> tuple[int, str, str]:
    done = subprocess.run(
        ["bash", "-c", line], cwd=repo.path, env={**os.environ, **env}, capture_output=True, check=False
    )
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_c5_any_encoding_of_the_output(changed: Repo, encoding: str) -> None:
    """`diff --stats` has headings that ASCII lacks: "this is a bug in theta: UnicodeEncodeError"."""
    code, out, err = shell(changed, f"{THETA} diff --stats", **ENCODINGS[encoding])
    assert (code, err) == (0, "")
    assert "layer.1.weight" in out
    last = out.rpartition("layers ")[2]
    assert "\\" not in last
    assert last.isascii() == (encoding != "utf-8")


@pytest.mark.parametrize(
    ("encoding", "name"),
    [("ascii", b"mod\xc3\xa8l.safetensors"), ("C locale", b"mod\xc3\xa8l\xff.safetensors")],
)
def test_c5_names_that_are_not_in_the_encoding(changed: Repo, encoding: str, name: bytes) -> None:
    make_model(changed.path / os.fsdecode(name), random_tensors({"a": (4, 4)}))
    shown = os.fsdecode(name).encode("ascii", "backslashreplace").decode().replace("\\udc", "\\x")
    for line in ("status", "add .", "status", "commit -m more", "diff HEAD~ HEAD", "log --stat"):
        code, out, err = shell(changed, f"{THETA} {line}", **ENCODINGS[encoding])
        assert (code, err) == (0, ""), line
        assert line == "add ." or shown in out, line
    assert name in subprocess.run(["git", "ls-files", "-z"], cwd=changed.path, capture_output=True).stdout


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_c5_closed_streams(changed: Repo, closed: str) -> None:
    """`status >&-` gave two tracebacks; a file that is opened next must not take the number either."""
    code, out, err = shell(changed, f"{THETA} status {closed}")
    assert (code, err) == (0, "")
    assert ("layer" in out or MODEL in out) == (">&-" not in closed.replace("2>&-", ""))
    code, _, err = shell(changed, f"{THETA} commit -qam more {closed}")
    assert (code, err) == (0, "")
    changed.fsck()
    assert changed.git("status", "--porcelain") == ""


@pytest.mark.parametrize(
    "command", ["status", "diff", "diff --stats", "log --stat", "show --codecs HEAD:" + MODEL]
)
def test_c5_a_full_device_is_not_the_repository(changed: Repo, command: str) -> None:
    code, _, err = shell(changed, f"{THETA} {command} > /dev/full")
    assert (code, err) == (29, "error: cannot write the output: No space left on device\n")


def test_c5_a_full_standard_error_is_no_error(changed: Repo) -> None:
    assert shell(changed, f"{THETA} cat HEAD:no#x 2> /dev/full")[0] == 13


@pytest.mark.parametrize(
    "command", ["show HEAD:model.safetensors", "status", "blame code.py", "log", "diff --stats"]
)
def test_c5_a_reader_that_goes_away_ends_the_command_as_it_ends_git(changed: Repo, command: str) -> None:
    """The exit code was 0, 1 or 243, half of the time."""
    # The pipe is closed before anything is written; `| head -1` is a race that theta may win.
    code, _, err = shell(changed, f"exec 3> >(exec true); sleep 0.1; {THETA} {command} >&3")
    assert (code, err) == (141, "")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_c5_a_signal_ends_a_command_without_a_trace(
    repo: Repo, number: signal.Signals, code: int, tmp_path: Path
) -> None:
    repo.theta("track", "*.safetensors")
    make_model(repo.path / MODEL, random_tensors({f"t{i}": (1000, 1000) for i in range(24)}))
    with subprocess.Popen(
        # Whoever runs the tests in the background ignores some signals, and children inherit that.
        ["env", "--default-signal", sys.executable, "-m", "theta", "add", MODEL],
        cwd=repo.path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        pack = repo.path / ".git" / "objects" / "pack"
        deadline = time.monotonic() + 60
        while not list(pack.glob("tmp_theta_*")) and time.monotonic() < deadline:
            time.sleep(0.01)
        child.send_signal(number)
        out, err = child.communicate(timeout=60)
    assert (child.returncode, out, err.strip()) == (code, b"", b"")
    assert list(pack.glob("tmp_theta_*")) == []
    repo.fsck()
    repo.theta("add", MODEL)


def test_c5_nohup_keeps_a_command_alive(changed: Repo) -> None:
    line = f"trap '' HUP; {THETA} status & while kill -HUP $! 2> /dev/null; do sleep 0.01; done; wait $!"
    assert shell(changed, line)[::2] == (0, "")
