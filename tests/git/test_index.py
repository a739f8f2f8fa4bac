"""Index edits: git accepts them, trusts the stat data where it may, and sees them whole or not at all."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pygit2.ffi import C

from tests.support import Repo
from theta import _fs
from theta.errors import BusyError, DiskError, UnsupportedRepositoryError
from theta.git.backends import index as index_module
from theta.git.backends.index import IndexEdit, fresh_paths, read_entries
from theta.git.backends.index_entries import Staged
from theta.git.repository import Repository

pytestmark = pytest.mark.usefixtures("of_libgit2")

EMPTY = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"


@pytest.fixture
def index(repo: Repo) -> Path:
    repo.git("hash-object", "-w", "--stdin")
    return repo.path / ".git" / "index"


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "repo" / ".git" / "theta" / "tmp"


def listing(repo: Repo) -> list[str]:
    return repo.git("ls-files", "-s", "-t").splitlines()


def test_entries_come_in_the_order_of_git(repo: Repo, index: Path, scratch: Path) -> None:
    with IndexEdit(index, scratch) as edit:
        for path in ("z", "a/b", "a.b", "a", "é", "A", "long/" + "x" * 4200):
            if path != "a":
                edit.put(Staged(path, EMPTY))
    names = repo.git("-c", "core.quotePath=false", "ls-files").splitlines()
    assert names == sorted(names, key=lambda name: name.encode())
    assert [entry.path for entry in read_entries(index)] == names
    repo.git("fsck")
    repo.git("write-tree")


@pytest.mark.parametrize("seconds", [-(2**31) - 5, -1, 0, 2**31 - 1, 2**31, 2**32 - 1, 2**32 + 7])
def test_times_of_any_century_are_kept_as_by_git(
    repo: Repo, index: Path, scratch: Path, seconds: int
) -> None:
    file = repo.write("x", "")
    os.utime(file, ns=(seconds * 10**9 + 5, seconds * 10**9 + 5))
    if os.stat(file).st_mtime_ns != seconds * 10**9 + 5:
        pytest.skip("the file system keeps no such time")
    with IndexEdit(index, scratch) as edit:
        edit.put(Staged("x", EMPTY, 0o100644, stat=os.lstat(file)))
    told = repo.git("ls-files", "--debug", "x")
    assert f"mtime: {seconds % 2**32}:5" in told
    repo.git("update-index", "-q", "--really-refresh")
    assert repo.git("ls-files", "--debug", "x") == told
    fresh_paths(index, {"x": os.lstat(file)})


def test_a_change_replaces_and_removes(repo: Repo, index: Path, scratch: Path) -> None:
    with IndexEdit(index, scratch) as edit:
        edit.put(Staged("x", EMPTY, 0o100755))
        edit.put(Staged("x", EMPTY, 0o100644))
        edit.remove("code.py")
        edit.remove("never there")
    assert listing(repo) == [f"H 100644 {EMPTY} 0\tx"]


class Counting:
    """libgit2, with a count of the entries that it is asked to remove."""

    def __init__(self, library: Any) -> None:
        self.library, self.removed = library, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.library, name)

    def git_index_remove(self, *args: Any) -> int:
        self.removed += 1
        return int(self.library.git_index_remove(*args))


def test_stages_are_looked_for_only_in_an_index_with_conflicts(
    repo: Repo, index: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting(C)
    monkeypatch.setattr(index_module, "C", counting)
    with IndexEdit(index, scratch) as edit:
        for number in range(100):
            edit.put(Staged(f"x{number}", EMPTY))
        edit.remove_conflicts_under("x")
    assert counting.removed == 0
    with IndexEdit(index, scratch) as edit:
        edit.put_conflict("y", EMPTY, EMPTY, EMPTY)
        edit.put_conflict("z/1", EMPTY, EMPTY, EMPTY)
        edit.put(Staged("y", EMPTY))
    with IndexEdit(index, scratch) as edit:
        edit.remove_conflicts_under("z")
    assert [entry for entry in read_entries(index) if entry.stage] == []
    assert "y" in {entry.path for entry in read_entries(index)}


def test_skip_worktree_is_set_and_kept(repo: Repo, index: Path, scratch: Path) -> None:
    with IndexEdit(index, scratch) as edit:
        edit.put(Staged(".theta/m/@tensor", EMPTY, skip=True))
    assert listing(repo)[0] == f"S 100644 {EMPTY} 0\t.theta/m/@tensor"
    repo.git("update-index", "--assume-unchanged", "code.py")
    with IndexEdit(index, scratch) as edit:
        edit.put(Staged("x", EMPTY))
    assert [line[0] for line in repo.git("ls-files", "-v").splitlines()] == ["S", "h", "H"]
    assert [entry.skip for entry in read_entries(index)] == [True, False, False]
    assert repo.git("status", "--porcelain").splitlines() == ["A  .theta/m/@tensor", "AD x"]


def test_intent_to_add_is_kept(repo: Repo, index: Path, scratch: Path) -> None:
    repo.write("new", "text")
    repo.git("add", "-N", "new")
    with IndexEdit(index, scratch) as edit:
        edit.put(Staged("x", EMPTY))
    assert " A new" in repo.git("status", "--porcelain")


@pytest.mark.parametrize("version", ["2", "3", "4"])
def test_every_version_of_the_format(repo: Repo, index: Path, scratch: Path, version: str) -> None:
    repo.git("update-index", "--index-version", version)
    before = repo.git("ls-files", "-s", "code.py")
    with IndexEdit(index, scratch) as edit:
        edit.put(Staged("x", EMPTY, skip=True))
        edit.put(Staged("x/y".replace("/", "-"), EMPTY))
    assert repo.git("ls-files", "-s", "code.py") == before
    assert [row.split("\t")[1] for row in listing(repo)] == ["code.py", "x", "x-y"]
    assert repo.git("status", "--porcelain", "code.py") == ""
    repo.git("fsck")


def test_conflicts_are_put_and_dropped(repo: Repo, index: Path, scratch: Path) -> None:
    with IndexEdit(index, scratch) as edit:
        edit.put(Staged("x", EMPTY))
        edit.put_conflict("x", EMPTY, EMPTY, EMPTY)
        edit.put_conflict("y", None, EMPTY, None)
    assert [row.split(" ")[3] for row in repo.git("ls-files", "-s", "-t", "x", "y").splitlines()] == [
        "1\tx",
        "2\tx",
        "3\tx",
        "2\ty",
    ]
    assert repo.git("status", "--porcelain").splitlines() == ["UU x", "AU y"]
    with IndexEdit(index, scratch) as edit:
        edit.put(Staged("x", EMPTY))
        edit.drop_conflict("y")
    assert repo.git("ls-files", "-u") == ""


def test_conflicts_below_a_directory(repo: Repo, index: Path, scratch: Path) -> None:
    with IndexEdit(index, scratch) as edit:
        edit.put_conflict(".theta/m/a", EMPTY, EMPTY, EMPTY)
        edit.put_conflict(".thetab", EMPTY, EMPTY, EMPTY)
        edit.put(Staged(".theta/m/b", EMPTY, skip=True))
    with IndexEdit(index, scratch) as edit:
        edit.remove_conflicts_under(".theta")
        assert edit.paths_under(".theta") == {".theta/m/b": (EMPTY, True)}
    assert {row.split("\t")[1] for row in repo.git("ls-files", "-u").splitlines()} == {".thetab"}


# -- stat data ------------------------------------------------------------------------------------


def aged(path: Path, seconds: float = 10) -> os.stat_result:
    """A file that was last written a while ago."""
    then = time.time() - seconds
    os.utime(path, (then, then))
    return os.lstat(path)


@pytest.mark.parametrize("version", ["2", "4"])
def test_git_trusts_the_stat_data(repo: Repo, index: Path, scratch: Path, version: str) -> None:
    """An entry whose file is not what its id says is clean for git, if the stat data say so."""
    repo.git("update-index", "--index-version", version)
    path = repo.write("m", "what the file holds")
    info = aged(path)
    with IndexEdit(index, scratch) as edit:
        edit.put(Staged("m", EMPTY, stat=info))
    assert fresh_paths(index, {"m": info, "code.py": info}) == {"m"}
    assert repo.git("diff", "--name-only") == ""
    path.write_text("what the file holds now")
    assert repo.git("diff", "--name-only") == "m"
    assert fresh_paths(index, {"m": os.lstat(path)}) == set()


def test_git_looks_at_an_entry_without_stat_data(repo: Repo, index: Path, scratch: Path) -> None:
    repo.write("m", "what the file holds")
    with IndexEdit(index, scratch) as edit:
        edit.put(Staged("m", EMPTY))
    assert repo.git("diff", "--name-only") == "m"


def test_the_size_of_a_huge_file_is_modulo_two_to_the_32(repo: Repo, index: Path, scratch: Path) -> None:
    """Git keeps 32 bits; exactly 4 GiB must not look like "unknown" (read-cache.c)."""
    for name, size in (("four", 1 << 32), ("five", (5 << 30) + 7)):
        path = repo.path / name
        with path.open("wb") as file:
            file.truncate(size)
        info = aged(path)
        with IndexEdit(index, scratch) as edit:
            edit.put(Staged(name, EMPTY, stat=info))
        assert fresh_paths(index, {name: info}) == {name}
    # A git before 2.43 takes the first for racy, even if git staged it, and compares the content.
    assert repo.git("diff", "--name-only") in ("", "four")


@pytest.mark.parametrize("number", range(3))
def test_a_racy_entry_is_not_made_trustworthy(repo: Repo, index: Path, scratch: Path, number: int) -> None:
    """Git add, rewrite in the same tick, then theta writes a younger index: git must look again."""
    path = repo.write("racy", "one\n")
    repo.git("add", "racy")
    info = os.lstat(path)
    path.write_text("two\n")
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    with IndexEdit(index, scratch) as edit:
        edit.put(Staged(f"x{number}", EMPTY))
    repo.git("config", "core.trustctime", "false")
    assert repo.git("diff", "--name-only", "racy") == "racy"


# -- the lock -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("patient", [True, False])
def test_a_lock_of_another_is_busy(index: Path, scratch: Path, patient: bool) -> None:
    lock = Path(f"{index}.lock")
    lock.touch()
    before = index.read_bytes()
    with pytest.raises(BusyError) as caught, IndexEdit(index, scratch, patient=patient):
        pass
    assert str(lock) in caught.value.hint
    assert lock.exists()
    assert index.read_bytes() == before


def test_git_waits_for_theta(repo: Repo, index: Path, scratch: Path) -> None:
    with IndexEdit(index, scratch) as edit:
        assert repo.try_git("add", "code.py").returncode == 128 or repo.git("status") != ""
        done = repo.try_git("rm", "--cached", "code.py")
        assert done.returncode == 128
        assert "index.lock" in done.stderr
        edit.put(Staged("x", EMPTY))
    assert "x" in repo.git("ls-files").split()


def test_a_short_lock_is_waited_for(repo: Repo, index: Path, scratch: Path) -> None:
    lock = Path(f"{index}.lock")
    lock.touch()
    remover = "import os, sys, time; time.sleep(0.3); os.unlink(sys.argv[1])"
    child = subprocess.Popen([sys.executable, "-c", remover, str(lock)])
    with IndexEdit(index, scratch) as edit:
        edit.put(Staged("x", EMPTY))
    assert child.wait() == 0
    assert not lock.exists()


def test_an_error_inside_changes_nothing(index: Path, scratch: Path) -> None:
    before = index.read_bytes()
    with pytest.raises(KeyError), IndexEdit(index, scratch) as edit:
        edit.put(Staged("x", EMPTY))
        raise KeyError
    assert index.read_bytes() == before
    assert not Path(f"{index}.lock").exists()
    assert list(scratch.iterdir()) == []


def test_an_edit_that_changes_nothing_does_not_write(index: Path, scratch: Path) -> None:
    before = os.stat(index)
    with IndexEdit(index, scratch) as edit:
        edit.remove("never there")
    assert os.stat(index).st_ino == before.st_ino


def test_a_repository_without_an_index(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path / "new")], check=True)
    repo = Repo(tmp_path / "new")
    repo.git("hash-object", "-w", "--stdin")
    index = repo.path / ".git" / "index"
    assert read_entries(index) == []
    assert fresh_paths(index, {}) == set()
    with IndexEdit(index, repo.path / ".git" / "theta" / "tmp") as edit:
        edit.put(Staged("x", EMPTY))
    assert repo.git("ls-files") == "x"


@pytest.mark.parametrize("data", [b"", b"DIRC", b"junk" * 100])
def test_a_damaged_index_is_named(
    index: Path, scratch: Path, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line: what a destructor of libgit2's binding raises would be a traceback for the user."""
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    index.write_bytes(data)
    with pytest.raises(DiskError), IndexEdit(index, scratch) as edit:
        edit.put(Staged("x", EMPTY))
    gc.collect()
    assert index.read_bytes() == data
    assert not Path(f"{index}.lock").exists()
    assert unraisable == []


def test_a_split_index_is_refused_or_read(repo: Repo, index: Path, scratch: Path) -> None:
    repo.git("update-index", "--split-index")
    try:
        with IndexEdit(index, scratch) as edit:
            edit.put(Staged("x", EMPTY))
    except UnsupportedRepositoryError as error:
        assert "split" in str(error)
        assert "no-split-index" in error.hint
    assert "code.py" in repo.git("ls-files").split()


def test_extensions_do_not_go_stale(repo: Repo, index: Path, scratch: Path) -> None:
    """The cache tree and the untracked cache must not outlive the change."""
    repo.git("update-index", "--untracked-cache")
    repo.git("status")
    repo.git("write-tree")
    with IndexEdit(index, scratch) as edit:
        edit.put(Staged("sub/x", EMPTY))
    assert repo.git("ls-tree", "-r", "--name-only", repo.git("write-tree")).split() == ["code.py", "sub/x"]
    repo.write("untracked", "")
    assert "?? untracked" in repo.git("status", "--porcelain")


def test_two_worktrees_have_an_index_each(repo: Repo, tmp_path: Path) -> None:
    repo.git("worktree", "add", "--quiet", str(tmp_path / "second"), "-b", "second")
    one, two = Repository.discover(repo.path), Repository.discover(tmp_path / "second")
    assert one.index_path != two.index_path
    assert one.commondir == two.commondir
    assert one.private != two.private
    with IndexEdit(two.index_path, two.private / "tmp") as edit:
        edit.remove("code.py")
    assert repo.git("ls-files") == "code.py"
    assert Repo(tmp_path / "second").git("ls-files") == ""


def test_a_lock_that_another_takes_at_once_stays(
    index: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, rename = Path(f"{index}.lock"), _fs.rename

    def and_lock(source: Path, target: Path) -> None:
        rename(source, target)
        if target == index:
            lock.write_text("of another git")

    monkeypatch.setattr(_fs, "rename", and_lock)
    with IndexEdit(index, scratch) as edit:
        edit.put(Staged("a", EMPTY, 0o100644))
    assert lock.read_text() == "of another git"


@pytest.mark.parametrize("is_changed", [True, False])
def test_the_lock_goes_when_something_else_cannot_be_removed(
    index: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch, is_changed: bool
) -> None:
    remove = _fs.remove

    def failing(path: Path) -> None:
        if path.parent == scratch and path.name.endswith(".lock"):
            raise DiskError("Input/output error")
        remove(path)

    edit = IndexEdit(index, scratch)
    monkeypatch.setattr(_fs, "remove", failing)
    with pytest.raises(DiskError), edit:
        if is_changed:
            edit.put(Staged("a", EMPTY, 0o100644))
    assert not Path(f"{index}.lock").exists()
    assert list(scratch.iterdir()) == []
