"""Libgit2 and git itself say and do the same with the same repository."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pygit2
import pytest

from tests.support import Repo
from theta.errors import BusyError, DamagedRepositoryError, MissingObjectsError, UnsupportedRepositoryError
from theta.git import commit_graph
from theta.git.backends.by_git import ByGit
from theta.git.backends.by_libgit2 import Libgit2
from theta.git.backends.index_entries import Staged
from theta.git.backends.opening import discovered
from theta.git.backends.protocols import Backend, EditedIndex
from theta.git.object_format import BLOB, SHA1, SHA256, TREE
from theta.git.object_values import tree_bytes
from theta.git.repository import Repository
from theta.git.run import Git

Both = tuple[Backend, Backend]

pytestmark = pytest.mark.usefixtures("of_libgit2")


@pytest.fixture
def both(repo: Repo) -> Both:
    repo.write("a/b.txt", "b")
    repo.write("run.sh", "#!/bin/sh")
    os.chmod(repo.path / "run.sh", 0o755)
    repo.git("add", "--all")
    repo.git("commit", "--quiet", "-m", "two")
    repo.git("tag", "-a", "-m", "said", "v1")
    repo.git("branch", "side", "HEAD~1")
    place = repo.path / ".git"
    return Libgit2(pygit2.Repository(str(repo.path))), ByGit(Git(repo.path), place, repo.path, SHA1)


def same(both: Both, ask: Callable[..., object], *args: object) -> object:
    """Return what both say, which must be the same."""
    one, other = (ask(backend, *args) for backend in both)
    assert one == other
    return one


def test_objects(repo: Repo, both: Both) -> None:
    names = ("HEAD", "HEAD^{tree}", "v1", "HEAD:a/b.txt")
    oids = [repo.git("rev-parse", name) for name in names]
    for oid in [*oids, "1" * 40]:
        here = oid in oids
        assert (same(both, lambda backend, oid: backend.objects.read(oid), oid) is not None) is here
        assert (same(both, lambda backend, oid: backend.objects.header(oid), oid) is not None) is here
        assert same(both, lambda backend, oid: backend.objects.has(oid), oid) is here
    empty = SHA1.object_id(TREE, (), 0).hex()
    assert not (repo.path / ".git/objects" / empty[:2] / empty[2:]).exists()
    assert same(both, lambda backend: backend.objects.read(empty)) == (TREE, b""), "git has it built in"
    assert same(both, lambda backend: backend.objects.header(empty)) == (TREE, 0)
    blob = same(both, lambda backend: backend.objects.write(BLOB, b"new"))
    tree = tree_bytes([("x", 0o100644, str(blob))])
    assert same(both, lambda backend: backend.objects.write(TREE, tree)) == repo.git(
        "mktree", stdin=f"100644 blob {blob}\tx\n"
    )
    assert both[1].objects.read(str(blob)) == (BLOB, b"new"), "an object that came since is seen"


def test_a_look_up_knows_what_is_here(repo: Repo, both: Both, tmp_path: Path) -> None:
    """Loose, packed, and borrowed objects; what comes later is there for the next look-up."""
    lender = tmp_path / "lender"
    subprocess.run(["git", "init", "-q", str(lender)], check=True)
    told = ["git", "-C", str(lender), "hash-object", "-w", "--stdin"]
    lent = subprocess.run(told, input=b"lent", capture_output=True, check=True).stdout.decode().strip()
    (repo.path / ".git/objects/info/alternates").write_text(f"{lender}/.git/objects\n")
    packed = repo.git("rev-parse", "HEAD")
    repo.git("repack", "-adq")
    (repo.path / "later").write_text("later")
    loose = repo.git("hash-object", "-w", "later")
    ask = [Libgit2(pygit2.Repository(str(repo.path))).objects, both[1].objects]
    for objects in ask:
        known = objects.look_up()
        assert [known(oid) for oid in (packed, loose, lent, "1" * 40)] == [True, True, True, False]
    repo.git("repack", "-adq", "--keep-unreachable")
    assert all(objects.look_up()(loose) for objects in ask)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="of Linux")
def test_look_ups_map_nothing_again(repo: Repo) -> None:
    repo.git("repack", "-q")
    repo.git("multi-pack-index", "write")
    objects, mapped = Libgit2(pygit2.Repository(str(repo.path))).objects, []
    for _ in range(20):
        assert not objects.look_up()("1" * 40)
        mapped.append(Path("/proc/self/maps").read_text().count(str(repo.path)))
    assert mapped[0] == mapped[-1] > 0


def test_a_damaged_object_is_one_error(repo: Repo, both: Both) -> None:
    oid = repo.git("rev-parse", "HEAD:a/b.txt")
    place = repo.path / ".git/objects" / oid[:2] / oid[2:]
    os.chmod(place, 0o644)
    place.write_bytes(b"no object")
    for backend in both:
        with pytest.raises(DamagedRepositoryError, match=oid):
            backend.objects.read(oid)
    assert both[1].objects.has(repo.git("rev-parse", "HEAD")), "git is asked again"


def test_refs(repo: Repo, both: Both) -> None:
    head = repo.git("rev-parse", "HEAD")
    assert same(both, lambda backend: sorted(backend.refs)) == [
        "refs/heads/main",
        "refs/heads/side",
        "refs/tags/v1",
    ]
    assert same(both, lambda backend: backend.refs.head()) == ("refs/heads/main", head)
    for number, backend in enumerate(both):
        name = f"refs/theta/{number}"
        backend.refs.put({name: head})
        assert same(both, lambda backend, name: (name in backend.refs, backend.refs.target(name)), name)
        assert same(both, lambda backend, name: backend.refs.resolved(name), name) == head
        backend.refs.remove(name)
        assert same(both, lambda backend, name: name in backend.refs, name) is False
    assert same(both, lambda backend: backend.refs.resolved("refs/heads/none")) is None
    assert same(both, lambda backend: backend.refs.log("refs/heads/main"))
    repo.git("remote", "add", "up", "..")
    assert same(both, lambda backend: backend.refs.remotes()) == ["up"]
    repo.git("symbolic-ref", "refs/remotes/up/HEAD", "refs/heads/side")
    assert same(both, lambda backend: backend.refs.target("refs/remotes/up/HEAD")) == "refs/heads/side"
    repo.git("symbolic-ref", "refs/remotes/up/gone", "refs/heads/gone")
    assert same(both, lambda backend: sorted(backend.refs.all_resolved())) == [
        "refs/heads/main",
        "refs/heads/side",
        "refs/remotes/up/HEAD",
        "refs/tags/v1",
    ]
    assert same(both, lambda backend: backend.refs.all_resolved())
    repo.git("checkout", "--quiet", "--detach")
    assert same(both, lambda backend: backend.refs.head()) == ("", head)
    repo.git("checkout", "--quiet", "--orphan", "new")
    assert same(both, lambda backend: backend.refs.head()) == ("refs/heads/new", None)


def test_names_that_a_ref_can_have(both: Both) -> None:
    for name in ("refs/heads/a", "refs/heads/-x", "refs/theta/runs/a/b", "refs/heads/é", "refs/x@y"):
        assert same(both, lambda backend, name: backend.refs.is_valid(name), name)
    for name in (
        "",
        "a",
        "refs/heads/a..b",
        "refs/heads/",
        "refs/heads/a.lock",
        "refs/heads/a b",
        "refs/x@{y",
    ):
        assert not same(both, lambda backend, name: backend.refs.is_valid(name), name)


def by_libgit2(both: Both) -> Backend:
    """The one that waits by itself; git does for the other."""
    return next(backend for backend in both if isinstance(backend, Libgit2))


@pytest.mark.parametrize("change", ["put", "remove"])
def test_a_ref_that_is_locked_for_a_moment_is_waited_for(repo: Repo, both: Both, change: str) -> None:
    """Two gits may clean the same file at once, and theta holds what it stores by the same refs."""
    head, name = repo.git("rev-parse", "HEAD"), "refs/theta/clean/x"
    refs = by_libgit2(both).refs
    refs.put({name: head})
    lock = repo.path / ".git" / f"{name}.lock"
    lock.touch()
    unlocking = threading.Timer(0.15, lock.unlink)
    unlocking.start()
    if change == "put":
        refs.put({name: head})
    else:
        refs.remove(name)
    assert (name in refs) is (change == "put")
    unlocking.join()


def test_a_ref_that_stays_locked_is_an_error(repo: Repo, both: Both) -> None:
    (repo.path / ".git/refs/theta").mkdir()
    (repo.path / ".git/refs/theta/x.lock").touch()
    with pytest.raises(OSError, match="failed to lock"):
        by_libgit2(both).refs.put({"refs/theta/x": repo.git("rev-parse", "HEAD")})


def test_refs_that_worktrees_have_checked_out(repo: Repo, both: Both, tmp_path: Path) -> None:
    assert same(both, lambda backend: backend.refs.checked_out()) == {"refs/heads/main"}
    repo.git("worktree", "add", "--quiet", str(tmp_path / "linked"), "side")
    repo.git("checkout", "--quiet", "--orphan", "new")
    wanted = {"refs/heads/new", "refs/heads/side"}
    assert same(both, lambda backend: backend.refs.checked_out()) == wanted
    repo.git("checkout", "--quiet", "--detach", "main")
    assert same(both, lambda backend: backend.refs.checked_out()) == {"refs/heads/side"}


def test_a_ref_moves_if_nobody_else_moved_it(repo: Repo, both: Both) -> None:
    refs = both[0].refs
    old, new = repo.git("rev-parse", "main"), repo.git("rev-parse", "side")
    name = "refs/heads/moved"
    assert refs.move(name, old, "", "begin")
    assert not refs.move(name, new, "", "it is there")
    assert refs.move(name, new, old, "go on")
    assert not refs.move(name, new, old, "it is not there")
    assert repo.git("rev-parse", name) == new
    assert repo.git("reflog", "show", "--format=%gs", name).splitlines() == ["go on", "begin"]
    repo.git("symbolic-ref", "refs/heads/alias", name)
    assert not refs.move("refs/heads/alias", old, new, "git knows what to do")
    assert not refs.move(f"{name}/below", old, "", "a ref is in the way")
    (repo.path / ".git" / "refs" / "heads" / "moved.lock").touch()
    assert not refs.move(name, old, new, "somebody has it")
    (repo.path / ".git" / "refs" / "heads" / "moved.lock").unlink()
    hook = repo.path / ".git" / "hooks" / "reference-transaction"
    hook.parent.mkdir(exist_ok=True)
    hook.touch()
    assert not refs.move(name, old, new, "git runs the hook")
    assert repo.git("rev-parse", name) == new


def test_a_damaged_head_is_no_unborn_branch(repo: Repo, both: Both) -> None:
    (repo.path / ".git/refs/heads/main").write_text("no id\n")
    for backend in both:
        with pytest.raises(DamagedRepositoryError, match="HEAD"):
            backend.refs.head()


def test_configuration(repo: Repo, both: Both) -> None:
    with (repo.path / ".git/config").open("a") as file:
        file.write("[theta]\n\tbare\n\tmany = a\n\tMany = b c\n\tyes = On\n\tno = off\n")
    for key in ("theta.bare", "theta.many", "theta.yes", "theta.no", "theta.none", "core.bare"):
        same(both, lambda backend, key: (key in backend.config, backend.config.get(key)), key)
        same(both, lambda backend, key: backend.config.flag(key), key)
    with (repo.path / ".git/config").open("a") as file:
        file.write("\tcount = 2\n\tzero = 0\n\tempty =\n")
    flags = ("count", "zero", "empty")
    assert [same(both, lambda backend, key: backend.config.flag(f"theta.{key}"), key) for key in flags] == [
        True,
        False,
        False,
    ]
    assert same(both, lambda backend: backend.config.all("theta.many")) == ["a", "b c"]
    assert "theta.many" in str(same(both, lambda backend: {key for key in backend.config if "theta." in key}))


def test_history(repo: Repo, both: Both) -> None:
    head, first = repo.git("rev-parse", "HEAD"), repo.git("rev-parse", "HEAD~1")
    for name in ("HEAD", "v1", "main~1", "HEAD:a", "HEAD:none", "none", "-x", "1" * 40, head[:9]):
        same(both, lambda backend, name: backend.history.named(name), name)
    assert same(both, lambda backend: backend.history.merge_base(head, first)) == first
    assert same(both, lambda backend: backend.history.descends(head, first)) is True
    assert same(both, lambda backend: backend.history.descends(head, head)) is False
    walk = same(both, lambda backend: list(backend.history.since(head, parents_first=True)))
    assert walk == [first, head]
    assert same(both, lambda backend: list(backend.history.since(head, [first]))) == [head]
    for backend in both:
        for ask in (backend.history.merge_base, backend.history.descends):
            with pytest.raises(MissingObjectsError):
                ask(head, "1" * 40)
        with pytest.raises(MissingObjectsError):
            list(backend.history.since("1" * 40))


def edit(change: EditedIndex, oid: str) -> None:
    """One change of each kind."""
    change.put(Staged("new", oid))
    change.put(Staged(".theta/x/0", oid, skip=True))
    change.put_conflict("torn", oid, None, oid)
    change.remove("code.py")
    change.put_conflict("settled", oid, oid, None)
    change.drop_conflict("settled")
    change.put_conflict(".theta/y", oid, oid, oid)
    change.remove_conflicts_under(".theta")


def test_indexes(repo: Repo, both: Both, tmp_path: Path) -> None:
    index, oid = repo.path / ".git/index", repo.git("rev-parse", "HEAD:a/b.txt")
    assert same(both, lambda backend: backend.indexes.write_tree(index)) == repo.git("write-tree")
    rows = []
    for number, backend in enumerate(both):
        own = tmp_path / f"index-{number}"
        own.write_bytes(index.read_bytes())
        with backend.indexes.edit(own, tmp_path) as change:
            edit(change, oid)
            assert change.paths_under(".theta") == {".theta/x/0": (oid, True)}
            listed = list(change.entries())
        assert listed == backend.indexes.entries(own)
        rows.append(repo.git("ls-files", "-s", "-t", env={"GIT_INDEX_FILE": str(own)}))
        assert sorted(path.name for path in tmp_path.glob("index*")) == [
            f"index-{n}" for n in range(number + 1)
        ]
    assert rows[0] == rows[1]
    for ask in ("entries", "listing", "has_conflicts", "write_tree"):
        same(both, lambda backend, ask: getattr(backend.indexes, ask)(own), ask)
    assert [e.path for e in both[1].indexes.outside(own, ".theta")] == [
        "a/b.txt",
        "new",
        "run.sh",
        "torn",
        "torn",
    ]
    same(both, lambda backend: backend.indexes.outside(own, ".theta"))
    assert same(both, lambda backend: backend.indexes.entries(tmp_path / "none")) == []


def test_an_index_that_is_locked_or_left_in_the_middle(repo: Repo, both: Both, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    index = repo.path / ".git/index"
    before = index.read_bytes()
    for backend in both:
        with pytest.raises(KeyError), backend.indexes.edit(index, scratch) as change:
            change.remove("code.py")
            raise KeyError
        assert index.read_bytes() == before and not list(scratch.iterdir())
        lock = Path(f"{index}.lock")
        lock.touch()
        with pytest.raises(BusyError), backend.indexes.edit(index, scratch, patient=False):
            pass
        lock.unlink()


def test_stat_data_make_a_file_clean(repo: Repo, both: Both, tmp_path: Path) -> None:
    index, file = repo.path / ".git/index", repo.path / "code.py"
    oid = repo.git("rev-parse", "HEAD:code.py")
    os.utime(file, (10**9, 10**9))
    for backend in both:
        repo.git("read-tree", "HEAD")
        with backend.indexes.edit(index, tmp_path) as change:
            change.put(Staged("code.py", oid, stat=os.stat(file)))
        assert "code.py" not in repo.git("diff-files", "--name-only").splitlines()
        assert backend.indexes.fresh_paths(index, {"code.py": os.stat(file)}) == {"code.py"}


def test_objects_of_a_place_of_its_own(both: Both, tmp_path: Path) -> None:
    for number, backend in enumerate(both):
        place = tmp_path / f"{number}"
        (place / "pack").mkdir(parents=True)
        apart = backend.apart(place)
        oid = apart.objects.write(BLOB, b"only there %d" % number)
        assert apart.objects.has(oid) and not backend.objects.has(oid)
        known, head = apart.objects.look_up(), backend.refs.head()[1]
        assert known(oid) and head and known(head), "a rehearsal writes nothing again"
        assert apart.refs.head() == backend.refs.head()


# -- which of them opens a repository ------------------------------------------------------


def test_the_format_chooses(repo: Repo, tmp_path: Path) -> None:
    assert isinstance(discovered(repo.path), Libgit2)
    for bare in (False, True):
        place = tmp_path / f"sha256-{bare}"
        subprocess.run(["git", "init", "-q", "--object-format=sha256", *["--bare"] * bare, place], check=True)
        found = discovered(place)
        assert isinstance(found, ByGit) and found.objects.format is SHA256
        assert (found.top is None) is bare
    assert Repository.discover(place).format is SHA256


def test_a_reftable_is_left_to_git(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    """A git that knows reftables opens it; for an older one the error says what to do."""
    with (repo.path / ".git/config").open("a") as file:
        file.write("[core]\n\trepositoryformatversion = 1\n[extensions]\n\trefStorage = reftable\n")
    known = (
        subprocess.run(["git", "rev-parse", "--git-dir"], cwd=repo.path, capture_output=True).returncode == 0
    )
    if known:
        assert isinstance(discovered(repo.path), ByGit)
    else:
        with pytest.raises(UnsupportedRepositoryError, match="reftable"):
            discovered(repo.path)


def test_trees_and_commits_of_sha256(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", "--object-format=sha256", tmp_path], check=True)
    repo = Repository.discover(tmp_path)
    empty = repo.read_tree(repo.git().run("mktree", stdin=b"").text.strip())
    oid = repo.write_blob(b"x")
    assert len(oid) == 64 == len(SHA256.blob_id(b"x")) and oid == SHA256.blob_id(b"x")
    tree = commit_graph.edit_tree(repo, empty, {"a/b": (oid, 0), "c": (oid, 0o100755)})
    commit = repo.commit(commit_graph.unnamed_commit(repo, tree, []))
    assert commit.tree == tree and [path for path, _ in repo.walk_blobs(repo.read_tree(tree))] == ["a/b", "c"]
    assert repo.git().run("fsck", "--strict").code == 0


def test_head_is_known_anew_after_each_change(repo: Repo, both: Both) -> None:
    """Git is asked once as long as the files that say it stay as they are."""
    seen = []
    for step in (
        "commit --quiet --allow-empty -m three",
        "switch --quiet -c new",
        "commit --quiet --allow-empty -m four",
        "pack-refs --all",
        "update-ref refs/heads/new HEAD~1",
        "pack-refs --all",
        "commit --quiet --allow-empty -m five",
        "checkout --quiet --detach",
        "reset --quiet --soft HEAD~1",
        "symbolic-ref refs/heads/other refs/heads/side",
        "symbolic-ref HEAD refs/heads/other",
        "update-ref refs/heads/side v1^{commit}",
        "symbolic-ref HEAD refs/heads/unborn",
    ):
        repo.git(*step.split())
        seen.append(same(both, lambda backend: backend.refs.head()[1]))
        assert same(both, lambda backend: backend.history.named("HEAD")) == seen[-1]
        assert both[1].refs.head() == both[1].refs.head()
    assert seen[-1] is None


def test_the_index_is_read_anew_after_each_change(repo: Repo, both: Both) -> None:
    place = repo.path / ".git" / "index"
    for step in ("rm --quiet --cached run.sh", "add run.sh", "mv a/b.txt a/c.txt"):
        repo.git(*step.split())
        assert same(both, lambda backend: list(backend.indexes.entries(place)))
        listed = same(both, lambda backend: backend.indexes.listing(place))
        assert listed == repo.git("ls-files", "-s", "-z").encode()
        assert len(list(both[1].indexes.outside(place, "a"))) == len(repo.git("ls-files", ":!a").split())


def test_remotes_have_any_name(repo: Repo, both: Both) -> None:
    for name in ("origin", "a.b/c", "up"):
        repo.git("remote", "add", name, "nowhere")
    assert same(both, lambda backend: backend.refs.remotes()) == ["a.b/c", "origin", "up"]


@pytest.mark.parametrize("bare", [False, True])
def test_it_is_opened_by_one_process(tmp_path: Path, bare: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "lines\nof a\nname"
    subprocess.run(
        ["git", "init", "-q", "--object-format=sha256", *["--bare"] * bare, str(place)], check=True
    )
    monkeypatch.setenv("GIT_TRACE", str(tmp_path / "trace"))
    opened = discovered(place)
    assert (opened.top, opened.gitdir) == ((None, place) if bare else (place, place / ".git"))
    assert (tmp_path / "trace").read_text().count("built-in: git ") == 1


def test_a_head_of_a_linked_worktree_may_be_a_link(repo: Repo, tmp_path: Path) -> None:
    """Git opens it, and libgit2 does not."""
    repo.git("worktree", "add", "-q", "-b", "side", str(tmp_path / "linked"))
    place = repo.path / ".git/worktrees/linked/HEAD"
    place.unlink()
    place.symlink_to("refs/heads/side")
    found = discovered(tmp_path / "linked")
    assert found.refs.head() == ("refs/heads/side", repo.git("rev-parse", "main"))
    place.unlink()
    place.symlink_to("refs/heads/new")
    assert found.refs.head() == ("refs/heads/new", None)


def test_the_variable_overrides_a_worktree_that_is_lost(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    repo.git("config", "core.worktree", "lost")
    monkeypatch.setenv("GIT_DIR", str(repo.path / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(repo.path))
    monkeypatch.chdir(repo.path)
    found = discovered(repo.path)
    assert found.top is not None and os.path.realpath(found.top) == os.path.realpath(repo.path)
    assert found.refs.head()[0] == "refs/heads/main"
