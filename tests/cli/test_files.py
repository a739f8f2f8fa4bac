"""Files that disappear, change, lie or do not fit while theta works on them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.checks import never_a_bug, refused
from tests.support import Repo, make_model, random_tensors, server, sha256
from tests.support.repos import describe
from theta.errors import ExitCode

Done = subprocess.CompletedProcess[str]


@pytest.fixture
def tracked(repo: Repo) -> Repo:
    """A repository that tracks safetensors files and has none yet."""
    repo.theta("track", "*.safetensors")
    repo.theta("commit", "-m", "track")
    return repo


def model(repo: Repo, seed: int = 0, rows: int = 400) -> Path:
    return make_model(repo.path / "m.safetensors", random_tensors({"a": (rows, 250), "b": (3,)}, seed))


def state(repo: Repo) -> tuple[str, ...]:
    """All that a refused command must leave as it was."""
    return repo.git("rev-parse", "HEAD"), repo.git("ls-files", "-s"), repo.git("for-each-ref")


def leftovers(repo: Repo) -> list[Path]:
    return [path for path in repo.path.rglob("tmp_*") if path.is_file()]


# -- while it is read ---------------------------------------------------------------------------

CHANGING = """
import os
from pathlib import Path
from theta.store.files.file_source import FileSource
path, change = Path("m.safetensors"), os.environ["CHANGE"]
plain, reads = FileSource.read, [0]
def read(self, offset, length):
    reads[0] += 1
    if reads[0] == int(os.environ["AT"]):
        if change == "unlink":
            path.unlink()
        elif change == "truncate":
            os.truncate(path, 5000)
        elif change == "rewrite":
            data = bytearray(path.read_bytes()); data[-1] ^= 1
            path.write_bytes(data)
        elif change == "replace":
            data = path.read_bytes(); path.unlink(); path.write_bytes(data)
        elif change == "append":
            with path.open("ab") as file: file.write(b"x")
    return plain(self, offset, length)
FileSource.read = read
"""


def while_read(repo: Repo, change: str, at: int, *args: str) -> Done:
    """Run ``theta ARGS`` with the file changed at the ``at``-th read."""
    env = {"THETA_TEST_FIRST": CHANGING, "CHANGE": change, "AT": str(at)}
    return repo.theta(*args, code=None, env=env)


@pytest.mark.parametrize("at", [1, 4])
@pytest.mark.parametrize("change", ["unlink", "truncate", "rewrite", "replace", "append"])
def test_a_file_that_changes_while_it_is_read(tracked: Repo, change: str, at: int) -> None:
    path = model(tracked)
    before = state(tracked)
    done = while_read(tracked, change, at, "add", "m.safetensors")
    refused(done, ExitCode.CHANGED_WHILE_READ, "m.safetensors", "nothing was stored")
    assert state(tracked) == before
    assert leftovers(tracked) == []
    wanted = sha256(model(tracked))
    tracked.theta("add", "m.safetensors")
    tracked.theta("commit", "-m", "whole")
    path.unlink()
    tracked.theta("restore", "m.safetensors")
    assert sha256(path) == wanted


@pytest.mark.parametrize("command", [["status"], ["diff"], ["commit", "-a", "-m", "x"]], ids=" ".join)
def test_a_file_that_disappears_under_other_commands(tracked: Repo, command: list[str]) -> None:
    model(tracked)
    tracked.theta("add", "m.safetensors")
    tracked.theta("commit", "-m", "one")
    model(tracked, seed=1)
    done = while_read(tracked, "unlink", 2, *command)
    never_a_bug(done)
    assert done.returncode in (0, ExitCode.CHANGED_WHILE_READ), describe(done)
    tracked.fsck()


def test_a_directory_or_a_link_where_a_checkpoint_belongs(tracked: Repo) -> None:
    (tracked.path / "d.safetensors").mkdir()
    (tracked.path / "l.safetensors").symlink_to("code.py")
    os.mkfifo(tracked.path / "f.safetensors")
    tracked.theta("add", "d.safetensors", code=None)
    done = tracked.theta("add", "l.safetensors")
    never_a_bug(done)
    assert tracked.git("ls-files", "-s", "l.safetensors").startswith("120000")
    never_a_bug(tracked.theta("status"))


# -- headers that lie ------------------------------------------------------------------------------


def header(entries: object, tail: bytes = b"\0" * 64, length: int | None = None) -> bytes:
    text = json.dumps(entries).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + tail


ENTRY = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
LIES: dict[str, bytes] = {
    "a header cut short": header({"a": ENTRY})[:30],
    "only a length": (100).to_bytes(8, "little"),
    "a header beyond the file": header({"a": ENTRY}, length=5000),
    "a header of exabytes": header({"a": ENTRY}, length=2**62)[:5] + b"\0\0\0" + b"{" * 40,
    "data cut short": header({"a": ENTRY}, b"\0" * 15),
    "data behind the end": header({"a": ENTRY}, b"\0" * 17),
    "a hole": header({"a": ENTRY, "b": ENTRY | {"data_offsets": [20, 36]}}, b"\0" * 36),
    "an overlap": header({"a": ENTRY, "b": ENTRY | {"data_offsets": [8, 24]}}, b"\0" * 24),
    "a shape that does not fit": header({"a": ENTRY | {"shape": [5]}}, b"\0" * 16),
    "an unknown dtype": header({"a": ENTRY | {"dtype": "F99"}}, b"\0" * 16),
    "a name twice": header({}, b"").replace(b"{}", b"")[:0]
    + (lambda text: len(text).to_bytes(8, "little") + text + b"\0" * 16)(
        b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'
    ),
    "no JSON": (40).to_bytes(8, "little") + b"{" + b"\xff" * 39 + b"\0" * 64,
    "no object": (2).to_bytes(8, "little") + b"[]" + b"\0" * 16,
}
SILENT = {"only a length", "no object"}
"""Files that do not even claim to be safetensors: plain bytes, and nothing to warn of."""


@pytest.mark.parametrize("what", LIES)
def test_a_lying_header_is_tracked_as_plain_bytes(tracked: Repo, what: str) -> None:
    path = tracked.write("m.safetensors", LIES[what])
    done = tracked.theta("add", "m.safetensors")
    never_a_bug(done)
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning: m.safetensors: ")]
    assert done.stderr.count("\n") == len(warnings) == (0 if what in SILENT else 1), done.stderr
    assert all("plain bytes" in line for line in warnings)
    tracked.theta("commit", "-m", what)
    path.unlink()
    tracked.theta("restore", "m.safetensors")
    assert path.read_bytes() == LIES[what]
    assert tracked.git("status", "--porcelain") == ""


def test_an_empty_file_is_a_checkpoint_too(tracked: Repo) -> None:
    path = tracked.write("m.safetensors", b"")
    tracked.theta("add", "m.safetensors")
    tracked.theta("commit", "-m", "empty")
    path.unlink()
    tracked.theta("restore", "m.safetensors")
    assert path.read_bytes() == b""
    assert tracked.git("status", "--porcelain") == ""


# -- no space -----------------------------------------------------------------------------------------


def limited(repo: Repo, size: int, *args: str) -> Done:
    """Run ``theta ARGS`` where no file may become longer than ``size`` bytes; its output goes to pipes."""
    client = str(server.get().program)
    return repo.run(client, "-P", "-m", "theta", *args, env={"THETA_TEST_FILE_SIZE": str(size)})


@pytest.mark.parametrize("size", [0, 60_000])
@pytest.mark.parametrize("args", [["add", "m.safetensors"], ["commit", "-a", "-m", "two"]], ids=" ".join)
def test_no_space_to_store(tracked: Repo, args: list[str], size: int) -> None:
    model(tracked)
    tracked.theta("add", "m.safetensors")
    tracked.theta("commit", "-m", "one")
    wanted = sha256(model(tracked, seed=1))
    before = state(tracked)
    done = limited(tracked, size, *args)
    refused(done, ExitCode.NO_SPACE, "no space")
    assert state(tracked) == before
    assert leftovers(tracked) == []
    assert sha256(tracked.path / "m.safetensors") == wanted
    tracked.theta(*args)
    tracked.fsck()
    assert tracked.theta("status", "--short").stdout in ("", "M  m.safetensors\n")


@pytest.mark.parametrize("size", [0, 60_000])
@pytest.mark.parametrize("old", ["gone", "other"])
def test_no_space_to_restore(tracked: Repo, size: int, old: str) -> None:
    path = model(tracked)
    wanted = sha256(path)
    tracked.theta("add", "m.safetensors")
    tracked.theta("commit", "-m", "one")
    if old == "gone":
        path.unlink()
    else:
        path.write_bytes(b"something else")
    done = limited(tracked, size, "restore", "m.safetensors")
    refused(done, ExitCode.NO_SPACE, "no space")
    assert not path.exists() if old == "gone" else path.read_bytes() == b"something else"
    assert leftovers(tracked) == []
    tracked.theta("restore", "m.safetensors")
    assert sha256(path) == wanted


def test_a_checkpoint_that_cannot_fit_is_refused_before_it_is_written(
    tracked: Repo, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from theta import _fs
    from theta.cli.app import run

    path = model(tracked)
    tracked.theta("add", "m.safetensors")
    tracked.theta("commit", "-m", "one")
    path.unlink()
    monkeypatch.chdir(tracked.path)
    answer: Callable[[object], int] = lambda place: 1000  # noqa: E731
    monkeypatch.setattr(_fs, "free_space", answer)
    assert run(["restore", "m.safetensors"]) == ExitCode.NO_SPACE
    said = capfd.readouterr().err
    assert "0 B free, and 400 kB are to be written" in said
    assert not path.exists()
