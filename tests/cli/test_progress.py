"""The progress line: what it says of long work, and that it is away when anything else is printed."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import Repo, make_model, random_tensors
from theta.cli import console, progress_line

_AT_ONCE = """\
from theta.cli import progress_line

progress_line._AFTER = progress_line._EVERY = -1.0
"""
"""Shows every step: on a fast machine none of a small file lasts long enough to be told."""


def _on_terminal(repo: Repo, *args: str, scratch: Path) -> str:
    """Return what the command writes to a terminal; no kernel is compiled, and no step is too short."""
    program = [sys.executable, "-m", "theta"] if args[0] == "theta" else ["git"]
    master, slave = pty.openpty()
    (scratch / "sitecustomize.py").write_text(_AT_ONCE)  # each Python that starts imports it
    modules = os.pathsep.join([str(scratch), os.environ["PYTHONPATH"]])
    env = os.environ | {"NUMBA_CACHE_DIR": str(scratch / "numba"), "PYTHONPATH": modules}
    env |= {"TERM": "xterm", "COLUMNS": "78"}
    child = subprocess.Popen(
        [*program, *args[1:]], cwd=repo.path, env=env, stdin=slave, stdout=slave, stderr=slave
    )
    os.close(slave)
    out = bytearray()
    while True:
        try:
            out += os.read(master, 65536)
        except OSError:
            break
    os.close(master)
    assert child.wait() == 0, out.decode()
    return out.decode()


@pytest.mark.parametrize("program", ["theta", "git"])
def test_f1_compiling_and_storing_are_told_in_theta_add_and_in_the_filter(
    tmp_path: Path, program: str
) -> None:
    repo = Repo.create(tmp_path / "repo")
    repo.theta("track", "*.safetensors")
    tensors = random_tensors({f"t{n}": (512, 512) for n in range(4)})
    make_model(repo.path / "model.safetensors", tensors)
    shown = _on_terminal(repo, program, "add", "model.safetensors", scratch=tmp_path)
    lines = re.split(r"\r|\x1b\[K|\n", shown)
    assert any(line.startswith("compiling kernels, once after an installation: ") for line in lines)
    assert any(re.match(r"storing model\.safetensors: \d+ % of 4\.2 MB", line) for line in lines)
    assert all(len(line) < 78 for line in lines if line.startswith(("storing", "hashing", "compiling")))


def test_f1_what_is_soon_done_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    now, told = [100.0], list[str]()
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    line = progress_line.ProgressLine("storing", told.append)
    line.step("storing", 100, "a.pt")
    for seconds in (0.4, 0.6, 0.65, 0.8):
        now[0] = 100.0 + seconds
        line(10)
    assert [text.split(" of ")[0] for text in told] == ["storing a.pt: 20 %", "storing a.pt: 40 %"]


def test_f1_a_step_has_total_per_cent_speed_and_time_left() -> None:
    assert progress_line.step_text("hashing", "a.pt", 250_000_000, 1_000_000_000, 2.0) == (
        "hashing a.pt: 25 % of 1.0 GB, 125 MB/s, 6 s left"
    )
    assert progress_line.step_text("merging", "", 0, 0, 0.0) == "merging"
    assert progress_line.step_text("merging", "", 9, 5, 1.0).startswith("merging: 100 % of 5 B")


def test_the_time_left_counts_from_the_first_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels were compiled for a minute, and the time left was that of a file stored at that pace."""
    now, told = [100.0], list[str]()
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    line = progress_line.ProgressLine("storing", told.append)
    line.step("storing", 100_000_000, "a.pt")

    def after(seconds: float, nbytes: int) -> str:
        now[0] += seconds
        line(nbytes)
        return told[-1]

    assert after(60, 10_000_000) == "storing a.pt: 10 % of 100 MB"
    assert after(1, 10_000_000) == "storing a.pt: 20 % of 100 MB, 10.0 MB/s, 8 s left"
    line.compiling()
    assert after(30, 10_000_000) == "storing a.pt: 30 % of 100 MB, 10.0 MB/s, 7 s left"
    assert after(1, 10_000_000) == "storing a.pt: 40 % of 100 MB, 10.0 MB/s, 6 s left"
    line.step("restoring", 10_000_000)
    assert after(5, 1_000_000) == "restoring a.pt: 10 % of 10.0 MB"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (59, "59 s"), (85, "1 min 25 s"), (3600 * 2 + 300, "2 h 5 min")]
)
def test_times_are_in_their_two_largest_units(seconds: float, text: str) -> None:
    assert progress_line.duration(seconds) == text


def test_the_line_is_taken_away_before_anything_else_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    console.write_line("hashing: 3 %")
    console.out("done")
    captured = capsys.readouterr()
    assert captured.err == "\r\x1b[Khashing: 3 %\r\x1b[K"
    assert captured.out == "done\n"


def test_b3_a_fetch_in_a_partial_clone_tells_how_far_it_is(tmp_path: Path) -> None:
    """Git's own progress, on theta's line; none of it stays."""
    repo = Repo.create(tmp_path / "repo")
    repo.git("config", "uploadpack.allowFilter", "true")
    repo.git("config", "uploadpack.allowAnySHA1InWant", "true")
    repo.theta("track", "*.safetensors")
    make_model(repo.path / "model.safetensors", random_tensors({"w": (64, 64)}))
    repo.theta("add", ".")
    repo.theta("commit", "-q", "-m", "a model")
    clone = Repo(tmp_path / "clone")
    repo.git("clone", "-q", "--no-checkout", "--filter=blob:none", repo.path.as_uri(), str(clone.path))
    shown = _on_terminal(clone, "theta", "show", "HEAD:model.safetensors#w", scratch=tmp_path)
    states = re.split(r"\r|\x1b\[K|\n", shown)
    assert any(re.match(r"remote: Counting objects: +100%", state) for state in states), shown
    assert shown.rindex("\x1b[K") > shown.rindex("objects"), "the last state stays"
    quiet = clone.theta("cat", "HEAD:model.safetensors#w")
    assert "objects" not in quiet.stderr
