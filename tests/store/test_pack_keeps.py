"""``git repack -ad`` between a pack of theta and the ref that names it: nothing is dropped."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.compat.agreement import assert_agreement
from tests.compat.inprocess import committed, started, theta
from tests.compat.story import MODEL, TENSOR, digest, edit
from tests.support import Repo
from theta.porcelain.care import checkup
from theta.porcelain.plain_git import filtering
from theta.porcelain.workspace.session import Change, Session
from theta.store import held_packs
from theta.store.odb import pack_keeps


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return started(tmp_path / "repo")


def keeps(repo: Repo) -> list[str]:
    return [place.name for place in (repo.path / ".git/objects/pack").glob("*.keep")]


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

    monkeypatch.setattr(held_packs, "hold", later)
    edit(repo, TENSOR)
    session = Session.here(repo.path)
    service = filtering.Filter(lambda: session, print)
    manifest = service.clean(MODEL, [(repo.path / MODEL).read_bytes()])
    assert manifest.startswith(b"theta checkpoint")
    assert keeps(repo) == []
    assert repo.git("rev-list", "--objects", "--no-object-names", "--glob=refs/theta/clean/*")
    monkeypatch.undo()
    repo.git("add", MODEL)
    assert_agreement(repo, {MODEL: digest(repo)})


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
