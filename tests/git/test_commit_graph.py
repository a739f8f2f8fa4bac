"""Commits, trees and the index as theta reads them without git are as git says."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import Repo
from theta.git import commit_graph
from theta.git.object_values import differing
from theta.git.repository import Repository

PARENTS = st.lists(st.lists(st.integers(0, 6), max_size=3, unique=True), min_size=2, max_size=7)
"""For each commit how far back its parents are; none for a root."""
BLOBS = st.dictionaries(
    st.sampled_from(["a", "b", "a.b", "a/c", "a/d/e", "b/c", ".theta/x"]), st.integers(0, 2), max_size=6
)
"""Files: path -> which content; 2 is a symbolic link."""
SHARED = [HealthCheck.function_scoped_fixture]


@pytest.fixture
def repository(repo: Repo) -> Repository:
    return Repository.discover(repo.path)


@settings(max_examples=12, deadline=None, suppress_health_check=SHARED)
@given(PARENTS)
def test_the_bases_of_any_two_commits(repo: Repo, repository: Repository, back: list[list[int]]) -> None:
    tree = repository.tree_of("HEAD").id
    commits: list[str] = []
    for number, far in enumerate(back):
        parents = [commits[-1 - steps] for steps in far if steps < len(commits)]
        root = [] if parents else [commit_graph.unnamed_commit(repository, tree, [])]
        same = commits and not parents and root[0] in commits
        commits.append(root[0] if root and not same else _distinct(repository, tree, parents, number))
    for one, other in itertools.combinations(commits, 2):
        told = repo.try_git("merge-base", "--all", one, other).stdout.split()
        assert commit_graph.merge_bases(repository, one, other) == told
        kept = repo.git("merge-base", "--independent", one, other).split()
        assert sorted(commit_graph.independent(repository, [one, other])) == sorted(kept)
        octopus = repo.try_git("merge-base", "--octopus", one, other).stdout.strip()
        assert (commit_graph.octopus_base(repository, [one, other]) or "") in (octopus, *told)


def _distinct(repository: Repository, tree: str, parents: list[str], number: int) -> str:
    """A commit like no other: its tree has one more file."""
    blob = repository.write_blob(f"{number}".encode())
    own = commit_graph.edit_tree(repository, repository.read_tree(tree), {"number": (blob, 0o100644)})
    return commit_graph.unnamed_commit(repository, own, parents)


@settings(max_examples=40, deadline=None, suppress_health_check=SHARED)
@given(BLOBS, BLOBS)
def test_the_files_that_differ(
    repo: Repo, repository: Repository, before: dict[str, int], after: dict[str, int]
) -> None:
    trees = [_tree(repository, files) for files in (before, after)]
    old, new = map(repository.read_tree, trees)
    found = list(differing(old, new, ".theta"))
    outside = ("--", ".", ":(exclude).theta")
    rows = repo.git("diff-tree", "-r", "-z", "--no-renames", "--name-status", *trees, *outside).split("\0")
    assert sorted(found) == sorted(zip(rows[1::2], rows[0::2], strict=False))
    added = {path for path, _ in differing(None, new)}
    assert added == set(repo.git("ls-tree", "-r", "--name-only", trees[1]).splitlines())


def _tree(repository: Repository, files: dict[str, int]) -> str:
    """A tree of ``files``; a file and a directory of one name are not wanted at once."""
    folders = {str(parent) for path in files for parent in Path(path).parents}
    kept = {path: kind for path, kind in files.items() if path not in folders}
    modes = {0: 0o100644, 1: 0o100755, 2: 0o120000}
    empty = repository.read_tree(repository.git().run("mktree", stdin=b"").text.strip())
    changes = {path: (repository.write_blob(b"%d" % kind), modes[kind]) for path, kind in kept.items()}
    return commit_graph.edit_tree(repository, empty, {**changes})


def test_the_tree_of_the_index(repo: Repo, repository: Repository) -> None:
    repo.write("sub/new", "new")
    repo.git("add", "sub/new")
    assert commit_graph.index_tree(repository) == repo.git("write-tree")
    repo.git("rm", "-q", "--cached", "code.py")
    os.remove(repo.path / "code.py")
    assert commit_graph.index_tree(repository) == repo.git("write-tree")
    oid = repo.git("rev-parse", "HEAD:code.py")
    repo.git("update-index", "--index-info", stdin=f"100644 {oid} 1\tcode.py\n100644 {oid} 2\tcode.py\n")
    assert commit_graph.index_tree(repository) is None, "something is in conflict"
