"""The paths that theta tracks are exactly those that git names."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import Repo
from theta.git.attributes import filter_of, only_tracked, tracked_entries
from theta.git.repository import Repository


@pytest.fixture
def repository(repo: Repo) -> Repository:
    repo.write(
        ".gitattributes", "*.st filter=theta\nno.st -filter\nlfs/** filter=lfs\n[ab].bin filter=theta\n"
    )
    repo.write("sub/.gitattributes", "*.st !filter\nkeep.st filter=theta\n")
    return Repository.discover(repo.path)


PATHS = {
    "m.st": True,
    "no.st": False,
    "lfs/m.st": False,
    "deep/er/m.st": True,
    "sub/m.st": False,
    "sub/keep.st": True,
    "a.bin": True,
    "c.bin": False,
    "m.ST": False,
    "é.st": True,
    "a b.st": True,
    "-x.st": True,
    "*.st": True,
    "new\nline.st": True,
    ".theta/m.st": False,
    'quo"te.st': True,
    ".theta/m.st/x.st": False,
}


def test_attributes_decide(repository: Repository) -> None:
    assert only_tracked(repository, PATHS) == [path for path, tracked in PATHS.items() if tracked]
    assert filter_of(repository, []) == {}
    assert filter_of(repository, ["lfs/m.st", "no.st"]) == {"lfs/m.st": "lfs", "no.st": "unset"}


def test_names_that_are_not_text(repository: Repository) -> None:
    name = b"\xff\xfe.st".decode("utf-8", "surrogateescape")
    assert only_tracked(repository, [name]) == [name]


def test_the_index_is_asked_with_all_stages(repo: Repo, repository: Repository) -> None:
    empty = repo.git("hash-object", "-w", "--stdin")
    rows = [
        f"100644 {empty} 0\t{path}"
        for path in ("m.st", "no.st", "code.txt", ".theta/m.st/x.st", "sub/keep.st")
    ]
    rows += [f"100755 {empty} {stage}\tboth.st" for stage in (1, 2, 3)]
    repo.git("update-index", "--add", "--index-info", stdin="\n".join(rows) + "\n")
    found = [(entry.path, entry.stage, entry.mode) for entry in tracked_entries(repository)]
    assert found == [
        *(("both.st", stage, 0o100755) for stage in (1, 2, 3)),
        ("m.st", 0, 0o100644),
        ("sub/keep.st", 0, 0o100644),
    ]


def test_it_does_not_matter_where_one_stands(
    repo: Repo, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.write("m.st", "x")
    repo.git("add", "m.st", "sub")
    monkeypatch.chdir(repo.path / "sub")
    here = Repository.discover(Path())
    assert here.worktree.resolve() == repository.worktree.resolve()
    assert [entry.path for entry in tracked_entries(here)] == ["m.st"]


def test_another_index_file(repo: Repo, repository: Repository, tmp_path: Path) -> None:
    repo.write("m.st", "x")
    other = tmp_path / "other-index"
    repo.git("add", "m.st", env={"GIT_INDEX_FILE": str(other)})
    assert tracked_entries(repository) == ()
    assert [entry.path for entry in tracked_entries(repository, other)] == ["m.st"]


def test_attributes_are_asked_for_again_where_their_files_changed(repo: Repo) -> None:
    repo.write("sub/m.st", "x")
    repo.write("n.st", "x")
    repo.git("add", "sub/m.st", "n.st")
    repository = Repository.discover(repo.path)
    paths = ["sub/m.st", "n.st"]
    assert only_tracked(repository, paths) == []
    repo.write("sub/.gitattributes", "*.st filter=theta\n")
    assert only_tracked(repository, paths) == ["sub/m.st"]
    repo.write(".git/info/attributes", "n.st filter=theta\n")
    assert only_tracked(repository, paths) == paths
    repo.git("add", "sub/.gitattributes")
    (repo.path / "sub/.gitattributes").unlink()
    assert only_tracked(repository, paths) == paths, "git reads what is in the index where no file is"
    repo.git("rm", "--quiet", "--cached", "sub/.gitattributes")
    assert only_tracked(repository, paths) == ["n.st"]


def test_the_index_is_read_again_where_it_changed(repo: Repo) -> None:
    repository = Repository.discover(repo.path)
    before = repository.entries()
    assert repository.entries() is before, "it is read once"
    repo.write(".theta/x/0", "x")
    repo.write("new", "x")
    repo.git("add", "--sparse", "new", ".theta")
    assert [entry.path for entry in repository.entries()] == ["code.py", "new"]
    repo.git("rm", "--quiet", "--cached", "new")
    assert [entry.path for entry in repository.entries()] == ["code.py"]


@pytest.mark.parametrize("setting", [("update-index", "--split-index"), ("rm", "-r", "--cached", "-q", ".")])
def test_entries_are_those_that_git_lists(repo: Repo, setting: tuple[str, ...]) -> None:
    for name in (".thetaa/x", ".theta/x", ".theta-", ".theta0", "a/.theta/y", "z"):
        repo.write(name, name)
    repo.git("add", "--sparse", "--all")
    repo.git(*setting)
    listed = [row.split("\t") for row in repo.git("ls-files", "-s").splitlines()]
    wanted = [(path, head.split()[1]) for head, path in listed if not path.startswith(".theta/")]
    assert [(entry.path, entry.oid) for entry in Repository.discover(repo.path).entries()] == wanted
