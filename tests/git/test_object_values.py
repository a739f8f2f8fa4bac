"""Objects, refs and configuration as values: what git says of the same repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support import Repo
from theta.errors import DamagedRepositoryError
from theta.git import commit_graph
from theta.git.object_values import MODE_BLOB, MODE_EXECUTABLE
from theta.git.repository import Repository


@pytest.fixture
def repository(repo: Repo) -> Repository:
    repo.write("a/b/c.txt", "c")
    repo.write("a/run.sh", "#!/bin/sh")
    os.chmod(repo.path / "a/run.sh", 0o755)
    repo.git("add", "--all")
    repo.git("commit", "--quiet", "-m", "two\n\nmore")
    return Repository.discover(repo.path)


def listed(repo: Repo, tree: str) -> list[str]:
    return repo.git("ls-tree", "-r", "--name-only", tree).splitlines()


def test_a_commit_is_what_git_shows(repo: Repo, repository: Repository) -> None:
    commit = repository.commit(repository.head() or "")
    shown = repo.git("show", "-s", "--format=%H %T %P %an %ae %at", "HEAD").split(" ")
    author = commit.author
    assert [
        commit.id,
        commit.tree,
        *commit.parents,
        *author.name.split(),
        author.email,
        str(author.time),
    ] == shown
    assert commit.message == "two\n\nmore\n"
    assert commit.data.decode().rstrip("\n") == repo.git("cat-file", "commit", "HEAD")
    assert repository.commit_or_none(commit.tree) is None


def test_a_tree_is_what_git_lists(repo: Repo, repository: Repository) -> None:
    tree = repository.tree_of("HEAD")
    assert [f"{entry.mode:06o} {entry.id}\t{entry.name}" for entry in tree] == [
        row.replace(" tree ", " ").replace(" blob ", " ") for row in repo.git("ls-tree", "HEAD").splitlines()
    ]
    assert [path for path, _ in repository.walk_blobs(tree)] == listed(repo, "HEAD")
    assert "a/b/c.txt" in tree and "a/none" not in tree and tree.get("a/none") is None
    folder, script = tree.get("a"), tree.get("a/run.sh")
    assert folder is not None and folder.tree is not None and "b/c.txt" in folder.tree
    assert script is not None and script.tree is None and script.mode == MODE_EXECUTABLE


def test_a_damaged_tree_has_a_name(repo: Repo, repository: Repository) -> None:
    tree, below = repository.tree_of("HEAD"), repo.git("rev-parse", "HEAD:a")
    place = repo.path / ".git/objects" / below[:2] / below[2:]
    os.chmod(place, 0o644)
    place.write_bytes(b"no object")
    with pytest.raises(DamagedRepositoryError, match="cannot be read"):
        tree.get("a/b")


def test_trees_are_edited(repo: Repo, repository: Repository) -> None:
    tree, oid = repository.tree_of("HEAD"), repository.write_blob(b"new")
    edited = commit_graph.edit_tree(
        repository,
        tree,
        {"a/run.sh": (oid, 0), "new": (oid, 0), "a/b/c.txt": None, "none": None, "x": (oid, MODE_EXECUTABLE)},
    )
    rows = repo.git("ls-tree", "-r", edited, "a", "new", "x").splitlines()
    assert rows == [f"{mode:06o} blob {oid}\t{path}" for path, mode in MODES.items()]
    without = repository.read_tree(commit_graph.with_directory(repository, tree, "a", None))
    assert listed(repo, without.id) == ["code.py"]
    again = commit_graph.with_directory(repository, without, "a", repo.git("rev-parse", "HEAD:a"))
    assert again == tree.id


MODES = {"a/run.sh": MODE_EXECUTABLE, "new": MODE_BLOB, "x": MODE_EXECUTABLE}


def test_the_graph_is_git_s(repo: Repo, repository: Repository) -> None:
    head, tree = repository.head() or "", repository.tree_of("HEAD").id
    one, two = (commit_graph.unnamed_commit(repository, tree, [head, *more]) for more in ([], [head]))
    assert (
        commit_graph.merge_bases(repository, one, two)
        == [head]
        == [commit_graph.octopus_base(repository, [one, two])]
    )
    assert commit_graph.merge_base(repository, one, two) == head
    assert commit_graph.independent(repository, [head, one, two, one]) == [one, two]
    assert commit_graph.descends(repository, one, head) and not commit_graph.descends(repository, head, one)
    first = repo.git("rev-parse", "HEAD~1")
    assert [commit.id for commit in commit_graph.oldest_first(repository, one, {one, head})] == [head, one]
    assert commit_graph.merge_bases(repository, first, "0" * 40) == []


def test_refs_and_configuration(repo: Repo, repository: Repository) -> None:
    head = repository.head() or ""
    repository.refs.put({"refs/theta/x": head})
    assert repository.refs.resolved("refs/theta/x") == repo.git("rev-parse", "refs/theta/x") == head
    assert set(repository.refs) == set(repo.git("for-each-ref", "--format=%(refname)").splitlines())
    repository.refs.remove("refs/theta/x")
    assert "refs/theta/x" not in repository.refs and repository.refs.resolved("refs/theta/x") is None
    assert not any(f"refs/heads/{name}" in repository.refs for name in ("a..b", "", "a~1"))
    repo.git("config", "theta.one", "yes")
    repo.git("config", "--add", "theta.many", "a")
    repo.git("config", "--add", "theta.many", "b")
    config = repository.config
    assert config.get("theta.one") == "yes" and config.flag("theta.one") and not config.flag("theta.none")
    assert config.get("theta.none") is None and config.all("theta.many") == ["a", "b"]
    assert "theta.many" in config and "theta.one" in list(config)


def test_a_session_in_a_place_of_its_own_writes_nothing_here(
    repo: Repo, repository: Repository, tmp_path: Path
) -> None:
    (tmp_path / "pack").mkdir()
    apart = repository.apart(tmp_path)
    oid = apart.write_blob(b"only there")
    assert apart.read_blob(oid) == b"only there" and apart.head() == repository.head()
    assert repository.blob(oid) is None and repo.try_git("cat-file", "-e", oid).returncode
