"""Names of stores, and keeping ``.theta/`` in agreement with what is staged."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.compat.inprocess import theta
from tests.support import Repo, make_model, random_tensors, sha256
from theta.git.backends.index import IndexEdit
from theta.porcelain.stage.staging import bases_of
from theta.porcelain.workspace.closures import store_name
from theta.porcelain.workspace.session import Session
from theta.store.format import manifest as manifests
from theta.store.format.manifest import Manifest

PATHS = st.lists(
    st.one_of(
        st.text(min_size=1, max_size=8), st.sampled_from(["con", ".git", "..", " ", "@x", "%", "模型" * 60])
    ),
    min_size=1,
    max_size=6,
).map("/".join)


@given(PATHS, st.sets(st.sampled_from(["a", "A", "checkpoint", "checkpoint~2", "model"])))
def test_a_store_is_one_name_that_every_file_system_takes(path: str, taken: set[str]) -> None:
    name = store_name(path, taken)
    assert name.lower() not in {other.lower() for other in taken}
    assert 0 < len(name.encode("utf-8", "surrogateescape")) <= 255, "a plain clone makes a directory of it"
    assert "/" not in name
    assert not name.startswith(("@", "%", "."))
    assert not name.endswith((".", " "))
    assert not re.search(r'[\x00-\x1f\x7f\\:*?"<>|]', name)
    assert name.lower() not in (".git", "git~1")
    text = Manifest("opaque", name, "0" * 40, ()).data
    assert manifests.parse(text).store == name


def test_a_store_says_where_it_came_from() -> None:
    assert store_name("model.safetensors", set()) == "model.safetensors"
    assert store_name("a/b.pt", set()) == "a%2Fb.pt"
    assert store_name("a%2Fb.pt", set()) != store_name("a/b.pt", set())
    assert store_name("m", {"m"}) != "m"


@pytest.fixture
def tracked(repo: Repo) -> Repo:
    repo.theta("track", "*.safetensors")
    make_model(repo.path / "m.safetensors", random_tensors({"a": (40, 50), "b": (3,)}))
    repo.theta("add", "m.safetensors")
    repo.theta("commit", "-m", "one")
    return repo


def stores(repo: Repo, revision: str = "HEAD") -> set[str]:
    return {
        row.split("/")[1] for row in repo.git("ls-tree", "-r", "--name-only", revision, ".theta").splitlines()
    }


def manifest(repo: Repo, spec: str) -> Manifest:
    return manifests.parse(repo.git("show", spec).encode() + b"\n")


def test_a_copied_checkpoint_gets_a_store_of_its_own(tracked: Repo) -> None:
    (tracked.path / "copy.safetensors").write_bytes((tracked.path / "m.safetensors").read_bytes())
    tracked.theta("add", "copy.safetensors")
    tracked.theta("commit", "-m", "copy")
    one, two = manifest(tracked, "HEAD:m.safetensors"), manifest(tracked, "HEAD:copy.safetensors")
    assert one.store != two.store
    assert stores(tracked) == {one.store, two.store}
    assert one.lines == two.lines


def test_a_store_keeps_its_name_when_the_file_is_renamed(tracked: Repo) -> None:
    before = tracked.git("rev-parse", "HEAD:.theta")
    tracked.theta("mv", "m.safetensors", "renamed.safetensors")
    tracked.theta("commit", "-m", "rename")
    assert tracked.git("rev-parse", "HEAD:.theta") == before
    make_model(tracked.path / "m.safetensors", random_tensors({"z": (4,)}))
    tracked.theta("add", "m.safetensors")
    tracked.theta("commit", "-m", "another under the old name")
    assert manifest(tracked, "HEAD:renamed.safetensors").store == "m.safetensors"
    assert len(stores(tracked)) == 2
    tracked.theta("fsck")


def test_a_store_goes_with_its_last_file(tracked: Repo) -> None:
    tracked.theta("rm", "m.safetensors")
    tracked.theta("commit", "-m", "gone")
    assert tracked.git("ls-tree", "-r", "--name-only", "HEAD", ".theta") == ""
    assert tracked.git("ls-files", ".theta") == ""


def test_what_is_staged_alone_is_no_base(tracked: Repo) -> None:
    """add, change, add: the value in between leaves no trace in the commit (same id as without it)."""
    path = tracked.path / "m.safetensors"
    tracked.git("branch", "straight")
    make_model(path, random_tensors({"a": (40, 50), "b": (3,)}, seed=1))
    tracked.theta("add", "m.safetensors")
    make_model(path, random_tensors({"a": (40, 50), "b": (3,)}, seed=2))
    tracked.theta("commit", "-a", "-m", "two")
    detour = tracked.git("rev-parse", "HEAD^{tree}")
    wanted = sha256(path)
    tracked.theta("switch", "straight")
    make_model(path, random_tensors({"a": (40, 50), "b": (3,)}, seed=2))
    assert sha256(path) == wanted
    tracked.theta("commit", "-a", "-m", "two")
    assert tracked.git("rev-parse", "HEAD^{tree}") == detour


def test_a_session_reads_what_it_wrote(tracked: Repo) -> None:
    session = Session.here(tracked.path)
    [(path, entry)] = session.index.items()
    assert path == "m.safetensors"
    assert session.manifest(entry.oid) == manifest(tracked, "HEAD:m.safetensors")
    assert {at: one.oid for at, one in session.head.items()} == {path: entry.oid}
    assert [base.data for base in bases_of(session, path)] == [session.manifest(entry.oid).data]


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files of which an index was written, one an entry, by theta in this process."""
    found: list[str] = []
    write = IndexEdit._write

    def noted(self: IndexEdit) -> None:
        write(self)
        found.append(self._path.name)

    monkeypatch.setattr(IndexEdit, "_write", noted)
    return found


def test_a_command_that_stages_writes_the_index_once(tracked: Repo, writes: list[str]) -> None:
    """The entries of a checkpoint and ``.theta/`` come in one step: none is there without the other."""
    make_model(tracked.path / "m.safetensors", random_tensors({"a": (40, 50), "b": (3,)}, seed=2))
    for command in (("add", "m.safetensors"), ("restore", "--staged", "m.safetensors")):
        writes.clear()
        theta(tracked, *command)
        assert writes == ["index"], command
    (tracked.path / "m.safetensors").unlink()
    writes.clear()
    theta(tracked, "add", "m.safetensors")
    assert writes == ["index"]
    assert "m.safetensors" not in tracked.git("ls-files")
