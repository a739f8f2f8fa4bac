"""One transaction: objects are durable before the index names them, and the index before a ref does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import Repo
from theta import _fs
from theta.errors import BusyError
from theta.git.backends.index_entries import Staged
from theta.git.run import GitFailedError
from theta.porcelain.workspace.session import Session


@pytest.fixture
def committed(repo: Repo) -> Repo:
    repo.write("a.txt", "a")
    repo.git("add", "a.txt")
    repo.git("commit", "-qm", "one")
    return repo


def packs(repo: Repo) -> list[str]:
    return sorted(path.name for path in (repo.path / ".git" / "objects" / "pack").iterdir())


def test_objects_then_the_index_then_the_ref(committed: Repo) -> None:
    session = Session.here(committed.path)
    index = committed.path / ".git" / "index"
    before, head = index.read_bytes(), committed.git("rev-parse", "HEAD").strip()
    new = committed.git("commit-tree", "-m", "two", "-p", head, f"{head}^{{tree}}").strip()
    with session.change() as change:
        oid = change.pack.blob(b"new", text=True)
        change.move("HEAD", new, head, "a step")
        assert not packs(committed) or not session.repo.has(oid), "nothing is visible yet"
        edit = change.index
        assert session.objects.text(oid) == b"new", "the index can name it only now"
        edit.put(Staged("b.txt", oid))
        assert index.read_bytes() == before
        assert committed.git("rev-parse", "HEAD").strip() == head
    assert f"{oid} 0\tb.txt" in committed.git("ls-files", "-s")
    assert committed.git("rev-parse", "HEAD").strip() == new
    assert "a step" in committed.git("reflog", "-1")
    assert "missing" not in committed.git("fsck")


def test_what_raises_leaves_nothing(committed: Repo) -> None:
    session = Session.here(committed.path)
    head, before = committed.git("rev-parse", "HEAD").strip(), committed.git("ls-files", "-s")
    kept = packs(committed)
    with pytest.raises(KeyError), session.change() as change:
        oid = change.pack.blob(b"new")
        change.index.put(Staged("b.txt", oid))
        change.pack.blob(b"newer")
        change.move("HEAD", "0" * 40, head, "never")
        raise KeyError
    assert committed.git("ls-files", "-s") == before
    assert committed.git("rev-parse", "HEAD").strip() == head
    assert not list((committed.path / ".git").rglob("*.lock"))
    new = {name.partition(".")[0] for name in {*packs(committed)} - {*kept}}
    assert len(new) <= 1, "of the objects those stay that were durable before the index was opened"
    assert not [name for name in packs(committed) if name.startswith("tmp_")]


def test_a_ref_that_somebody_moved_stays(committed: Repo) -> None:
    session = Session.here(committed.path)
    head = committed.git("rev-parse", "HEAD").strip()
    committed.git("commit", "-q", "--allow-empty", "-m", "theirs")
    theirs = committed.git("rev-parse", "HEAD").strip()
    with pytest.raises(GitFailedError), session.change() as change:
        change.move("HEAD", head, head, "back")
    assert committed.git("rev-parse", "HEAD").strip() == theirs


def test_a_block_within_a_block_is_done_first(committed: Repo) -> None:
    session = Session.here(committed.path)
    with session.change() as outer:
        with session.again().change() as inner:
            inner.index.put(Staged("b.txt", inner.pack.blob(b"b")))
        assert "b.txt" in committed.git("ls-files")
        outer.index.put(Staged("c.txt", session.repo.write_blob(b"c")))
        assert "c.txt" not in committed.git("ls-files")
    assert "c.txt" in committed.git("ls-files")


def test_one_change_at_a_time_but_for_what_git_started(
    committed: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("theta._notes.lock", lambda path, **how: _fs.Lock(path, **{**how, "patience": 0}))
    with Session.here(committed.path).change():
        with pytest.raises(BusyError), Session.here(committed.path).change():
            pass
        with Session.here(committed.path, in_git=True).change() as change:
            change.index.put(Staged("b.txt", change.pack.blob(b"b")))
    assert "b.txt" in committed.git("ls-files")
    with Session.here(committed.path).change():
        assert journal(committed).exists()
    assert not journal(committed).exists()


def journal(repo: Repo) -> Path:
    return repo.path / ".git" / "theta" / "journal"
