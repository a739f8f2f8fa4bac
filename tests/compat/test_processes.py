"""How many gits a command starts: processes cost more than all else that a small command does.

Counted are the lines of ``GIT_TRACE`` by which every git, those that git starts itself among them, says
what it is.  The bounds are to be lowered, never raised.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest

from tests.support import Repo, make_model, random_tensors

_STARTED = re.compile(r"trace: (built-in|exec): ")


def gits(repo: Repo, trace: Path, *command: str) -> list[str]:
    """The gits that ``theta COMMAND``, or ``git COMMAND``, starts and is."""
    program, *args = command
    run = repo.theta if program == "theta" else repo.git
    trace.unlink(missing_ok=True)
    run(*args, env={"GIT_TRACE": str(trace)})
    rows = trace.read_text().splitlines() if trace.exists() else []
    return [row.split("trace: ")[1] for row in rows if _STARTED.search(row)]


def change(repo: Repo, name: str, seed: int) -> None:
    """Give the model another value of one of its tensors."""
    tensors = random_tensors({"a.weight": (20, 30), "b.weight": (20, 30)})
    tensors[name] = np.random.default_rng(seed).standard_normal((20, 30)).astype(np.float32)
    path = repo.path / "m.safetensors"
    make_model(path, tensors)
    older = path.stat().st_mtime - 10  # git reads a file again that has the second of its index
    os.utime(path, (older, older))


@pytest.fixture
def tracked(repo: Repo) -> Repo:
    return begun(repo)


def begun(repo: Repo) -> Repo:
    """Commit a model in ``repo``."""
    repo.theta("track", "*.safetensors")
    change(repo, "a.weight", 1)
    repo.theta("add", "-A")
    repo.theta("commit", "-m", "one")
    repo.theta("status")
    return repo


def test_of_one_command(tracked: Repo, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    assert len(gits(tracked, trace, "theta", "status")) <= 2
    change(tracked, "a.weight", 2)
    found = gits(tracked, trace, "theta", "status")
    assert len(found) <= 2, found
    assert any("git status" in row for row in found), "the trace tells of git"
    change(tracked, "b.weight", 3)
    assert len(found := gits(tracked, trace, "theta", "restore", "m.safetensors")) <= 2, found
    change(tracked, "b.weight", 4)
    assert len(found := gits(tracked, trace, "theta", "add", "m.safetensors")) <= 4, found
    assert len(found := gits(tracked, trace, "theta", "diff", "HEAD")) <= 4, found
    assert len(found := gits(tracked, trace, "git", "commit", "-m", "by git")) <= 6, found
    change(tracked, "b.weight", 5)
    assert len(found := gits(tracked, trace, "theta", "commit", "-a", "-m", "two")) <= 6, found
    assert len(found := gits(tracked, trace, "theta", "log", "-1")) <= 2, found


def sides(repo: Repo) -> None:
    """Commit one tensor on both of two branches, and check the first of them out."""
    repo.git("checkout", "--quiet", "-b", "side")
    change(repo, "a.weight", 2)
    repo.theta("commit", "-a", "-m", "side")
    repo.git("checkout", "--quiet", "-")
    change(repo, "a.weight", 3)
    repo.theta("commit", "-a", "-m", "ours")


def test_of_a_merge(tracked: Repo, tmp_path: Path) -> None:
    sides(tracked)
    found = gits(tracked, tmp_path / "trace", "theta", "merge", "-X", "ties", "side")
    assert len(found) <= 11, found


def test_where_git_itself_reads_the_repository(tmp_path: Path) -> None:
    """Libgit2 cannot open a repository of SHA-256; what git said is asked again only when it may differ.

    The record for ``theta undo`` is eleven of them: HEAD, refs and the index, before and after.  Ten tell if
    the commits since have what the filter kept of two versions, whose four refs go then.  Ten more are the
    filter, where git reads the result again: ``git merge`` begins with a ``git stash create``, which has an
    index of its own, and the file may have the second of that index.
    """
    repo = Repo(tmp_path / "repo")
    repo.path.mkdir()
    repo.git("init", "--quiet", "--object-format=sha256")
    begun(repo)
    sides(repo)
    found = gits(repo, tmp_path / "trace", "theta", "merge", "-X", "ties", "side")
    assert len(found) <= 67 + 10, found
    change(repo, "b.weight", 4)
    found = gits(repo, tmp_path / "trace", "theta", "commit", "-a", "-m", "two")
    assert len([line for line in found if "update-ref -d" not in line]) <= 30 + 11 + 10, found


def test_a_commit_writes_no_object_for_each_folder(repo: Repo) -> None:
    """Git syncs each loose object: a commit of 219 tensors took 300 of them, one for each folder."""
    repo.theta("track", "*.safetensors")
    names = [f"layers.{number}.weight" for number in range(12)]
    make_model(repo.path / "m.safetensors", random_tensors(dict.fromkeys(names, (20, 30))))
    repo.theta("add", "-A")
    before = loose(repo)
    repo.theta("commit", "-m", "one")
    assert len(found := loose(repo) - before) <= 3, found


def loose(repo: Repo) -> set[str]:
    """The loose objects of ``repo``."""
    return {"".join(path.parts[-2:]) for path in (repo.path / ".git" / "objects").glob("??/*")}
