"""C6, C8, G6: what theta keeps for itself is a guess, and damage to what git keeps is one line."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.checks import never_a_bug
from tests.compat.agreement import assert_agreement
from tests.compat.inprocess import started
from tests.compat.story import MODEL, TENSOR, digest, edit
from tests.support import Repo, server
from tests.support.repos import describe
from theta.errors import ExitCode


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """A repository with one checkpoint, where the filter has stored what nobody committed."""
    repo = started(tmp_path_factory.mktemp("model") / "repo")
    edit(repo, TENSOR)
    repo.git("commit", "-q", "-am", "by the filter")
    edit(repo, TENSOR)
    repo.git("add", MODEL)
    for name in ("journal", "answers", "resync", "verified-head"):
        (repo.path / ".git" / "theta" / name).touch()
    return repo


@pytest.fixture
def repo(model: Repo, tmp_path: Path) -> Repo:
    """A copy that a test may change."""
    return model.copy(tmp_path / "repo")


def _is_directory(place: Path) -> None:
    content = place.read_bytes()
    place.unlink()
    place.mkdir()
    (place / "inside").write_bytes(content)


def _as_wrong_types(place: Path) -> None:
    identity = dict.fromkeys(("size", "mtime_ns", "ctime_ns", "inode", "device"), "x")
    row = {"identity": identity, "seen_ns": None, "manifest": 5}
    body = {"theta.stat/v1": {MODEL: row, "other": 3}, "token": [], "started": "nan", "applying": [1]}
    place.write_text(json.dumps(body))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda place: place.write_bytes(b""),
    "random": lambda place: place.write_bytes(bytes(range(255, -1, -1)) * 9),
    "cut": lambda place: place.write_bytes(place.read_bytes()[: place.stat().st_size // 2]),
    "a directory": _is_directory,
    "a list": lambda place: place.write_text("[[1], {}, null]"),
    "wrong types": _as_wrong_types,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_c6_damaged_notes_are_absent_notes(repo: Repo, damage: str) -> None:
    """Every file below ``.git/theta/`` at once; then those that the commands made since."""
    for args in (
        ["theta", "status"],
        ["git", "status"],
        ["git", "commit", "-q", "-m", "with damage"],
        ["theta", "commit", "-q", "-am", "again"],
        ["git", "checkout", "-q", "HEAD~1"],
        ["git", "checkout", "-q", "main"],
        ["theta", "restore", MODEL],
    ):
        notes = [place for place in (repo.path / ".git" / "theta").rglob("*") if place.is_file()]
        assert notes
        for place in notes:
            DAMAGE[damage](place)
        if args == ["theta", "commit", "-q", "-am", "again"]:
            edit(repo, TENSOR, 2.0)
        done = repo.theta(*args[1:], code=None) if args[0] == "theta" else repo.try_git(*args[1:])
        never_a_bug(done)
        assert done.returncode == 0, describe(done)
        assert "error" not in done.stderr, describe(done)
    assert_agreement(repo, {MODEL: digest(repo)})


def test_c6_a_file_where_a_folder_of_theta_belongs(repo: Repo) -> None:
    for name in ("tmp", "staged"):
        shutil.rmtree(repo.path / ".git" / "theta" / name, ignore_errors=True)
        (repo.path / ".git" / "theta" / name).write_text("no folder")
    edit(repo, TENSOR, 3.0)
    repo.git("commit", "-q", "-am", "by the filter")
    never_a_bug(repo.theta("status"))
    assert_agreement(repo, {MODEL: digest(repo)})


COMMANDS = [["status"], ["log"], ["log", "--stat"], ["show"], ["merge", "side"], ["commit", "-am", "x"]]
CONTENTS = {"empty": b"", "garbage": b"\xff\xfe garbage \x00\n", "gone": b"1" * 40 + b"\n"}


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("ref", ["HEAD", "refs/heads/main", "refs/heads/side"])
def test_g6_a_damaged_ref_is_one_line(repo: Repo, ref: str, content: str) -> None:
    repo.git("branch", "side")
    (repo.path / ".git" / ref).write_bytes(CONTENTS[content])
    for args in COMMANDS:
        done = repo.theta(*args, code=None)
        never_a_bug(done)
        if done.returncode == ExitCode.DAMAGED_REPOSITORY and done.stderr.startswith("error"):
            assert len(done.stderr.splitlines()) <= 2, describe(done)
    if ref != "refs/heads/side":
        assert repo.theta("status", code=None).returncode != 0


def test_c8_gitmodules_that_would_run_a_command(repo: Repo, tmp_path: Path) -> None:
    sign = tmp_path / "run"
    text = f'[submodule "s"]\n\tpath = s\n\turl = ./s\n\tupdate = !touch {sign}\n'
    repo.write(".gitmodules", text)
    repo.git("update-index", "--add", "--cacheinfo", f"160000,{repo.git('rev-parse', 'HEAD')},s")
    repo.git("add", ".gitmodules")
    repo.git("commit", "-q", "-m", "hostile")
    edit(repo, TENSOR, 4.0)
    assert MODEL in repo.theta("status").stdout
    assert ".gitmodules" not in repo.theta("status", "--porcelain").stdout
    assert "hostile" in repo.theta("log", "--stat").stdout
    repo.theta("commit", "-am", "goes on")
    assert not sign.exists()


@pytest.mark.parametrize("name", ["HEAD", "HEAD^{tree}", "HEAD:.gitattributes"])
def test_g6_an_object_that_ends_early_does_not_hang(repo: Repo, name: str) -> None:
    """As a power failure leaves it: git syncs no loose objects by default, and libgit2 reads it for ever."""
    oid = repo.git("rev-parse", name)
    place = repo.path / ".git/objects" / oid[:2] / oid[2:]
    place.chmod(0o600)
    place.write_bytes(place.read_bytes()[:-5])
    for args in (
        ["fsck"],
        ["status"],
        ["diff", "HEAD"],
        ["log", "-1"],
        ["restore", MODEL],
        ["show", "HEAD^"],
    ):
        code, _, err = server.get().run(args, repo.path, os.environ, "", 30)
        assert code != ExitCode.BUG and b"Traceback" not in err, (args, err)
    code, out, err = server.get().run(["fsck"], repo.path, os.environ, "", 30)
    assert code and oid.encode() in out + err
