"""``git repack -ad`` between a pack of theta and the ref that names it: nothing is dropped."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.compat.agreement import assert_agreement
from tests.compat.inprocess import committed, started, theta
from tests.compat.story import MODEL, TENSOR, digest, edit
from tests.support import Repo
from theta.errors import NoSpaceError
from theta.porcelain.care import checkup
from theta.porcelain.plain_git import filtering
from theta.porcelain.workspace.session import Change, Session
from theta.store import held_packs
from theta.store.odb import joined_packs, pack_keeps

AT_INDEX = """
import os
from theta import _fs
_fs.on_step = lambda operation, path: os.kill(os.getpid(), 9) if path.endswith(".idx") else None
"""


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return started(tmp_path / "repo")


def keeps(repo: Repo) -> list[str]:
    return [place.name for place in (repo.path / ".git/objects/pack").glob("*.keep")]


def clean(repo: Repo) -> bytes:
    session = Session.here(repo.path)
    service = filtering.Filter(lambda: session, print)
    return service.clean(MODEL, [(repo.path / MODEL).read_bytes()])


def test_objects_that_no_ref_names_yet_outlive_a_repack(repo: Repo) -> None:
    session = Session.here(repo.path)
    with session.change() as change:
        oid = change.pack.blob(b"soon to be named" * 100)
        change.store()
        repo.git("repack", "-adq")
        assert len(keeps(repo)) == 1
        change.move("refs/theta/x", oid, "", "x")
    assert keeps(repo) == []
    assert repo.git("cat-file", "-t", "refs/theta/x") == "blob"
    repo.git("repack", "-adq")
    assert repo.git("cat-file", "-t", "refs/theta/x") == "blob"
    assert len([*(repo.path / ".git/objects/pack").glob("*.pack")]) == 1


@pytest.mark.parametrize("line", [["add", MODEL], ["commit", "-qam", "x"]])
def test_each_step_of_a_command_outlives_a_repack(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, line: list[str]
) -> None:
    """Git repacks after each pack of ``theta add`` and ``theta commit``."""
    store, count = Change.store, []

    def stored(self: Change) -> None:
        store(self)
        repo.git("repack", "-adq")
        count.append(1)

    monkeypatch.setattr(Change, "store", stored)
    want = edit(repo, TENSOR)
    theta(repo, *line)
    assert count
    assert keeps(repo) == []
    assert_agreement(repo, {MODEL: want})


def test_what_the_filter_stored_outlives_a_repack(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    hold = held_packs.hold

    def later(*args: Any) -> None:
        repo.git("repack", "-adq")
        hold(*args)

    monkeypatch.setattr(f"{filtering.__name__}.held.hold", later)
    edit(repo, TENSOR)
    manifest = clean(repo)
    assert manifest.startswith(b"theta checkpoint")
    assert keeps(repo) == []
    assert repo.git("rev-list", "--objects", "--no-object-names", "--glob=refs/theta/clean/*")
    monkeypatch.undo()
    repo.git("add", MODEL)
    assert_agreement(repo, {MODEL: digest(repo)})


def test_a_manifest_that_no_index_names_yet_outlives_a_repack(repo: Repo) -> None:
    """Git writes its index after the filter has returned the manifest."""
    edit(repo, TENSOR)
    manifest = clean(repo)
    for command in (["repack", "-adq"], ["gc", "-q", "--prune=now"]):
        repo.git(*command)
        assert repo.git("hash-object", "-t", "blob", "--stdin", stdin=manifest.decode()) in repo.git(
            "cat-file", "--batch-check=%(objectname)", "--batch-all-objects"
        )


def test_a_file_that_status_has_read_stays_while_git_adds_another(repo: Repo) -> None:
    """The filter knows the first by its stat data, and sweeps as it stores the second."""
    shutil.copy(repo.path / MODEL, repo.path / "other.safetensors")
    theta(repo, "add", ".")
    want = edit(repo, TENSOR)
    time.sleep(1.1)  # or the stat data says nothing
    repo.git("status")
    other = edit(repo, TENSOR, 3.0, "other.safetensors")
    repo.git("add", MODEL, "other.safetensors")
    repo.git("commit", "-qm", "both")
    repo.git("fsck", "--connectivity-only")
    assert_agreement(repo, {MODEL: want, "other.safetensors": other})


@pytest.mark.parametrize("error", [NoSpaceError("no space left"), KeyboardInterrupt()])
def test_a_filter_that_fails_keeps_no_pack(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fails(*_: Any) -> None:
        assert len(keeps(repo)) == 1
        raise error

    edit(repo, TENSOR)
    with monkeypatch.context() as patched, pytest.raises(type(error)):
        patched.setattr(f"{filtering.__name__}.held.hold", fails)
        clean(repo)
    assert keeps(repo) == []


def test_a_filter_removes_the_file_of_one_that_was_killed(repo: Repo) -> None:
    pack = next((repo.path / ".git/objects/pack").glob("*.pack"))
    kept = pack.with_suffix(".keep")
    kept.write_text("theta 1 1\n")
    own = pack_keeps.Keeps()
    own.add(pack.with_suffix(""))
    assert kept.read_text() != "theta 1 1\n"
    own.release()
    assert keeps(repo) == []
    kept.write_text("theta 1 1\n")
    edit(repo, TENSOR)
    clean(repo)
    assert keeps(repo) == []


def test_half_a_pack_of_an_add_that_was_killed_goes(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(repo, TENSOR)
    assert repo.theta("add", MODEL, env={"THETA_TEST_FIRST": AT_INDEX}, code=None).returncode == -9
    packs = repo.path / ".git/objects/pack"
    [half] = [place for place in packs.glob("*.pack") if not place.with_suffix(".idx").exists()]
    monkeypatch.setattr(joined_packs, "_PUBLISHED", 0)
    theta(repo, "add", "other", code=None)
    assert not half.exists()
    assert keeps(repo) == []


def test_the_file_of_a_theta_that_was_killed_goes(repo: Repo) -> None:
    """``theta doctor --fix`` and ``theta gc`` remove it; that of a user, or of a running theta, stays."""
    committed(repo, (TENSOR, 1.0))
    repo.git("repack", "-adq")
    pack = next((repo.path / ".git/objects/pack").glob("*.pack"))
    kept = pack.with_suffix(".keep")
    code = "import os; from theta.store.odb import pack_keeps; from pathlib import Path; import sys;"
    code += "k = pack_keeps.Keeps(); k.add(Path(sys.argv[1]).with_suffix('')); os._exit(9)"
    for command in (["doctor", "--fix"], ["gc", "-q"]):
        pack = next((repo.path / ".git/objects/pack").glob("*.pack"))
        kept = pack.with_suffix(".keep")
        subprocess.run(["python", "-c", code, str(pack)], check=False)
        assert [*pack_keeps.stale(pack.parent)] == [kept]
        assert any(kept.name in one.text for one in checkup.examine(Session.here(repo.path)))
        theta(repo, *command)
        assert keeps(repo) == []
    pack = next((repo.path / ".git/objects/pack").glob("*.pack"))
    pack.with_suffix(".keep").write_text("mine\n")
    assert [*pack_keeps.stale(pack.parent)] == []
    own = pack_keeps.Keeps()
    own.add(pack.with_suffix(""))
    own.release()
    assert pack.with_suffix(".keep").read_text() == "mine\n"
