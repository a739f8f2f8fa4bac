"""theta and the independent reader are given the same twisted repositories, and read or refuse the same."""

from __future__ import annotations

import io
import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from tests.independent import RefusedError, restore
from tests.independent.forging import FOLDER, Forge, Tensor, layer, raw_dense
from tests.independent.mutants import Mutants
from tests.independent.twists import TWISTS, Twists
from tests.support import Repo
from theta.errors import ThetaError
from theta.git.repository import Repository
from theta.porcelain.look import checking
from theta.porcelain.workspace.session import Session
from theta.store.format import listings
from theta.store.read.reassembly import Restorer

BUNDLE: Final = Path(__file__).parent / "repository-1.bundle"
PATH: Final = "model.bin"
OWN_LIMITS: Final = (
    "too many factors",
    "too many runs",
    "factors are larger than the matrix",
    "larger than any",
)
"""Its own limits, in the words of the independent reader; the specification leaves them to readers."""


class Readers:
    """Both readers on one repository."""

    def __init__(self, repository: Path) -> None:
        self.path = repository
        self._session = Session(Repository.discover(repository))

    def by_theta(self, commit: str) -> bytes | str:
        """Return the file, or why theta refuses it."""
        objects = self._session.objects
        try:
            oid = self._session.repo.tree_of(commit).entries[PATH].id
            restorer = Restorer(objects, listings.read(objects, objects.text(oid)))
            return bytes(restorer.data())
        except ThetaError as error:
            return f"{type(error).__name__}: {error}"

    def by_specification(self, commit: str) -> bytes | str:
        """Return the file, or why the independent reader refuses it."""
        out = io.BytesIO()
        try:
            restore(self.path, commit, PATH, out)
        except RefusedError as error:
            return str(error)
        return out.getvalue()

    def checked(self, commit: str) -> list[str]:
        """Return what ``theta fsck --read-data`` says of the checkpoint."""
        oid = self._session.repo.tree_of(commit).entries[PATH].id
        owed = checking.Owed()
        return list(checking.problems_of(self._session, PATH, oid, owed, read_data=True))

    def difference(self, commit: str) -> str:
        """Return how the readers differ about a commit, or "" where both read the same or both refuse."""
        ours, theirs = self.by_theta(commit), self.by_specification(commit)
        if isinstance(theirs, str) and any(limit in theirs for limit in OWN_LIMITS):
            return ""
        if isinstance(ours, str) != isinstance(theirs, str) or (isinstance(ours, bytes) and ours != theirs):
            return f"theta {_told(ours)}; the other {_told(theirs)}"
        if bool(self.checked(commit)) != isinstance(ours, str):
            return f"theta {_told(ours)}; fsck says {self.checked(commit)}"
        return ""


def _told(found: bytes | str) -> str:
    return f"refuses: {found[:150]!r}" if isinstance(found, str) else f"reads {len(found)} bytes"


def clone(place: Path) -> tuple[Path, list[str]]:
    """Clone the golden repository; return its place, and the commits with a model."""
    repository = place / "clone.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", str(BUNDLE), str(repository)], check=True)
    wanted = json.loads(BUNDLE.with_suffix(".json").read_text())
    return repository, [commit for commit, digests in wanted.items() if digests]


def compare(repository: Path, made: list[tuple[str, str]]) -> Counter[str]:
    """Require that the readers agree on all commits; return how many of each kind both read."""
    readers = Readers(repository)
    differ = [(commit, kind, told) for commit, kind in made if (told := readers.difference(commit))]
    assert not differ, "\n".join(f"{kind} {commit[:9]}: {told}" for commit, kind, told in differ)
    return Counter(kind for commit, kind in made if isinstance(readers.by_theta(commit), bytes))


def twisted(place: Path, seed: int, count: int) -> tuple[Path, list[tuple[str, str]]]:
    repository, commits = clone(place)
    with Twists(repository, commits, "model.safetensors", seed) as twists:
        return repository, list(twists.make(count))


def damaged(place: Path, seed: int, count: int) -> tuple[Path, list[tuple[str, str]]]:
    repository, commits = clone(place)
    with Mutants(repository, commits, "model.safetensors", seed) as mutants:
        return repository, [(commit, "damage") for commit, _ in mutants.make(count)]


def test_both_readers_refuse_the_same(tmp_path: Path) -> None:
    repository, made = twisted(tmp_path, 1, 120)
    read = compare(repository, made)
    assert read["nothing"]
    assert len(read) > 4
    assert {kind for _, kind in made} == {twist.__name__ for twist in TWISTS}


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    """A repository on an unborn branch, and a branch ``other`` with a checkpoint of one tensor."""
    subprocess.run(["git", "init", "--quiet", str(tmp_path / "repo")], check=True)
    forge = Forge(tmp_path / "repo")
    layers = [layer("dense/1", None, "u8", [8])]
    tensor = Tensor("u8", [8], [8], b"01234567", layers, {"0.0000": raw_dense(b"01234567", 1)})
    made = Repo(tmp_path / "repo")
    made.git("update-ref", "refs/heads/other", forge.checkpoint({"t": tensor}))
    return made


def test_fsck_checks_other_branches_where_head_is_unborn(repo: Repo) -> None:
    assert repo.try_git("rev-parse", "-q", "--verify", "HEAD").returncode == 1
    repo.theta("fsck", "--read-data")
    chunk = repo.git("rev-parse", "other:.theta/model.bin/t/0.0000")
    (repo.path / ".git/objects" / chunk[:2] / chunk[2:]).unlink()
    for options in ((), ("--read-data",)):
        told = json.loads(repo.theta("fsck", "--json", *options, code=90).stdout)["theta.fsck/v1"]["problems"]
        assert len(told) == 1
        assert told[0].endswith(":model.bin#t: 1 of its files are missing")


@pytest.mark.parametrize("options", [(), ("--read-data",)])
def test_fsck_tells_of_a_tree_that_is_not_the_one_of_its_record(repo: Repo, options: tuple[str, ...]) -> None:
    old = repo.git("rev-parse", "other:.theta/model.bin/t")
    rows = repo.git("ls-tree", old)
    blob = repo.git("hash-object", "-w", "--stdin", stdin="more")
    tree = repo.git("mktree", stdin=f"{rows}\n100644 blob {blob}\t0.0001\n")
    text = repo.git("show", "other:model.bin").replace(old, tree)
    forge = Forge(repo.path)
    skeleton = repo.git("rev-parse", "other:.theta/model.bin/@skeleton")
    store = forge.tree({"t": (FOLDER, tree), "@skeleton": (FOLDER, skeleton)})
    commit = forge.manifest(f"{text}\n".encode(), {"model.bin": (FOLDER, store)})
    repo.git("update-ref", "refs/heads/other", commit)
    told = json.loads(repo.theta("fsck", "--json", *options, code=90).stdout)["theta.fsck/v1"]["problems"]
    assert told == [f"{commit[:12]}:model.bin#t: tree {tree} does not hold the files that its @tensor names"]


def test_fsck_tells_of_two_checkpoints_with_one_store(repo: Repo) -> None:
    text = repo.git("show", "other:model.bin").replace("store model.bin", "store Model.bin")
    blob = repo.git("hash-object", "-w", "--stdin", stdin=f"{text}\n")
    folder = repo.git("rev-parse", "other:.theta/model.bin")
    stores = repo.git("mktree", stdin="".join(f"040000 tree {folder}\t{k}odel.bin\n" for k in "Mm"))
    rows = [row for row in repo.git("ls-tree", "other").splitlines() if "\t.theta" not in row]
    rows += [f"040000 tree {stores}\t.theta", f"100644 blob {blob}\ttwin.bin"]
    commit = Forge(repo.path).commit(repo.git("mktree", stdin="".join(f"{row}\n" for row in rows)))
    repo.git("update-ref", "refs/heads/other", commit)
    told = json.loads(repo.theta("fsck", "--json", code=90).stdout)["theta.fsck/v1"]["problems"]
    assert told == [f"commit {commit[:12]}: model.bin and twin.bin have one store, Model.bin"]


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(100, 110))
def test_both_readers_refuse_the_same_of_much(tmp_path: Path, seed: int) -> None:
    compare(*twisted(tmp_path, seed, 2000))


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(200, 205))
def test_both_readers_refuse_the_same_damage(tmp_path: Path, seed: int) -> None:
    compare(*damaged(tmp_path, seed, 2000))
