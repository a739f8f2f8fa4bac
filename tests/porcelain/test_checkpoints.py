"""Checkpoints of an index, a tree and the worktree: one mapping, read once."""

from __future__ import annotations

import time

import pytest

from tests.support import Repo, make_model, random_tensors
from theta.git.backends.index_entries import Staged
from theta.porcelain.workspace.checkpoints import Checkpoint, Checkpoints
from theta.porcelain.workspace.session import Session

SHARDS = ("big-00001-of-00002.safetensors", "big-00002-of-00002.safetensors")


@pytest.fixture
def tracked(repo: Repo) -> Repo:
    repo.theta("track", "*.safetensors")
    for seed, name in enumerate(("m.safetensors", *SHARDS)):
        make_model(repo.path / name, random_tensors({f"t{seed}": (20, 30)}))
    repo.theta("add", "-A")
    repo.theta("commit", "-m", "one")
    return repo


def test_index_tree_and_worktree_name_the_same_checkpoints(tracked: Repo) -> None:
    session = Session.here(tracked.path)
    index, head = session.index, session.at("HEAD")
    assert [*index] == [*SHARDS, "m.safetensors"] == [*head] == [*session.head] == [*session.files]
    for path in index:
        assert index.oid(path) == head.oid(path) == session.files.oid(path)
        assert index.manifest(path) == head.manifest(path) is not None
        assert index[path].mode == head[path].mode == 0o100644
    assert {*index.by_store} == {*index}
    assert index.models() == {"big.safetensors": {*SHARDS}, "m.safetensors": {"m.safetensors"}}
    assert index.oid("nothing") is None
    assert index.manifest("nothing") is None


def test_the_worktree_has_what_its_files_hold(tracked: Repo) -> None:
    session = Session.here(tracked.path)
    before = session.index.oid("m.safetensors")
    make_model(tracked.path / "m.safetensors", random_tensors({"t0": (20, 30)}, seed=9))
    (tracked.path / SHARDS[0]).unlink()
    assert [*session.files] == [SHARDS[1]], "nobody has read the new file yet"
    time.sleep(0.06)  # what is noted of a file that was written just now is not trusted
    tracked.theta("add", "m.safetensors")
    tracked.theta("restore", "--staged", "m.safetensors")
    again = session.again()
    assert again.index.oid("m.safetensors") == before
    assert again.files.oid("m.safetensors") not in (None, before)


def test_the_index_is_read_once_until_it_or_an_attribute_changes(tracked: Repo) -> None:
    session = Session.here(tracked.path)
    index = session.index
    assert session.index is index
    assert session.head is session.at("HEAD")
    with session.change() as change:
        change.index.remove("m.safetensors")
    assert "m.safetensors" in index, "it does not change"
    assert [*session.index] == [*SHARDS]
    now = session.index
    (tracked.path / ".gitattributes").write_text("*-00001-of-00002.safetensors filter=theta\n")
    assert [*session.index] == [SHARDS[0]]
    assert [*now] == [*SHARDS]


def test_another_index_is_another_mapping(tracked: Repo) -> None:
    session = Session.here(tracked.path)
    other = tracked.path / ".git" / "other"
    other.write_bytes((tracked.path / ".git" / "index").read_bytes())
    with session.change(other) as change:
        change.index.remove("m.safetensors")
    assert [*session.index_of(other)] == [*SHARDS]
    assert [*session.index] == [*SHARDS, "m.safetensors"]


def test_a_path_in_conflict_has_stages_and_no_entry(tracked: Repo) -> None:
    session = Session.here(tracked.path)
    oid = session.index["m.safetensors"].oid
    with session.change() as change:
        change.index.put_conflict("m.safetensors", None, oid, oid)
    assert "m.safetensors" not in session.index
    assert [*session.index.conflicts] == ["m.safetensors"]
    assert {stage: one.oid for stage, one in session.index.stages["m.safetensors"].items()} == {
        2: oid,
        3: oid,
    }


def test_plain_bytes_are_tracked_and_no_manifest(tracked: Repo) -> None:
    session = Session.here(tracked.path)
    with session.change() as change:
        change.index.put(Staged("m.safetensors", session.repo.write_blob(b"raw")))
    assert "m.safetensors" in session.index
    assert session.index.manifest("m.safetensors") is None
    assert [*session.index.readable] == [*session.index.manifests] == [*SHARDS]


def test_an_unborn_branch_has_none(repo: Repo) -> None:
    assert not Session.here(repo.path).head


def test_each_manifest_is_read_when_it_is_asked_for() -> None:
    asked: list[str] = []

    def read(oid: str) -> None:
        asked.append(oid)

    found = Checkpoints([Checkpoint("a", "1" * 40), Checkpoint("b", "2" * 40, stage=2)], read)
    assert len(found) == 1
    assert not asked
    assert not found.manifests
    assert not found.by_store
    assert asked == ["1" * 40]
