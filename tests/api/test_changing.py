"""``add``, ``commit``, ``restore`` and ``merge`` from Python: what the commands do, without a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import theta
from tests.api.conftest import Arrays, arrays_of, same
from tests.compat.inprocess import branched, committed, copied, started
from tests.compat.story import MODEL, TENSOR, edit
from tests.support import Repo, make_model, random_tensors, sha256
from theta.errors import (
    IdentityError,
    NotFoundError,
    NoWorktreeError,
    RefusedError,
    UsageError,
    WouldOverwriteError,
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Main and side changed ``TENSOR`` differently; other changed another tensor."""
    repo = started(tmp_path_factory.mktemp("changing") / "repo")
    branched(repo, side=[(TENSOR, 3.0)], other=[("head.weight", 2.0)])
    committed(repo, (TENSOR, 1.0))
    return repo


@pytest.fixture
def repo(template: Repo, tmp_path: Path) -> Repo:
    return copied(template, tmp_path / "repo")


@pytest.fixture
def opened(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[theta.Repository]:
    """The repository, opened by a process that stands elsewhere; nothing may be printed."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    capfd.readouterr()
    with theta.open(repo.path) as found:
        yield found
    assert capfd.readouterr() == ("", "")


def test_a_commit_of_all_that_changed(repo: Repo, opened: theta.Repository) -> None:
    edit(repo, "head.weight")
    make_model(repo.path / "new.safetensors", random_tensors({"w": (4, 4)}))
    result = opened.commit("step 1", everything=True)
    assert result.summary is not None
    assert (result.summary.subject, result.summary.branch) == ("step 1", "main")
    assert result.summary.commit == repo.git("rev-parse", "HEAD")
    assert set(result.summary.checkpoints) == {MODEL, "new.safetensors"}
    assert [change.name for change in result.summary.checkpoints[MODEL].tensors] == ["head.weight"]
    assert repo.git("status", "--porcelain") == ""
    assert opened.status().clean
    repo.fsck()
    assert repo.theta("fsck").returncode == 0


def test_what_is_staged_and_what_is_named(repo: Repo, opened: theta.Repository) -> None:
    edit(repo, "head.weight")
    added = opened.add(MODEL)
    assert [item.path for item in added.added] == [MODEL]
    assert opened.commit("staged").code == 0
    edit(repo, "head.weight")
    repo.write("code.py", "print('other')\n")
    opened.commit("named", [MODEL])
    assert repo.git("status", "--porcelain") == " M code.py"
    opened.commit("amended", ["code.py"], amend=True)
    assert repo.git("log", "-2", "--format=%s").splitlines() == ["amended", "staged"]
    assert opened.commit("empty", allow_empty=True).summary is not None


def test_nothing_to_commit_is_refused_in_gits_words(opened: theta.Repository) -> None:
    with pytest.raises(RefusedError, match="nothing to commit"):
        opened.commit("nothing")


def test_a_hook_that_says_no(repo: Repo, opened: theta.Repository) -> None:
    hook = repo.path / ".git/hooks/commit-msg"
    hook.write_text("#!/bin/sh\necho not today >&2\nexit 1\n")
    hook.chmod(0o755)
    head = repo.git("rev-parse", "HEAD")
    edit(repo, "head.weight")
    with pytest.raises(RefusedError, match="not today"):
        opened.commit("step", everything=True)
    assert repo.git("rev-parse", "HEAD") == head


def test_nobody_is_known(repo: Repo, opened: theta.Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"):
        monkeypatch.delenv(name, raising=False)
    repo.git("config", "user.name", "")
    edit(repo, "head.weight")
    with pytest.raises(IdentityError):
        opened.commit("step", everything=True)


def test_restore(repo: Repo, opened: theta.Repository) -> None:
    before, committed_files = sha256(repo.path / MODEL), repo.git("ls-files", "-s")
    edit(repo, "head.weight")
    repo.write("code.py", "broken")
    result = opened.restore(".")
    assert result.checkpoints == (MODEL,)
    assert sha256(repo.path / MODEL) == before
    assert (repo.path / "code.py").read_text() == "print('hello')\n"
    edit(repo, "head.weight")
    opened.add()
    opened.restore(MODEL, staged=True, worktree=False)
    assert repo.git("ls-files", "-s") == committed_files
    assert sha256(repo.path / MODEL) != before
    opened.restore(MODEL, source="HEAD~1")
    assert same(arrays_of(repo.path / MODEL)[TENSOR], opened[f"HEAD~1:{MODEL}"][TENSOR].numpy())


def test_what_cannot_be_restored(opened: theta.Repository) -> None:
    with pytest.raises(NotFoundError):
        opened.restore(MODEL, source="gone")
    with pytest.raises(RefusedError, match="did not match"):
        opened.restore("gone.safetensors")


def merged(repo: Repo) -> Arrays:
    return arrays_of(repo.path / MODEL)


def test_a_merge_of_different_tensors(repo: Repo, opened: theta.Repository) -> None:
    result = opened.merge("other", message="both")
    assert (result.ending, result.code) == (theta.Ending.MERGED, 0)
    assert result.commit == repo.git("rev-parse", "HEAD")
    assert result.summary is not None and result.summary.subject == "both"
    first = random_tensors({name: array.shape for name, array in merged(repo).items()})
    assert set(first) == set(merged(repo))
    assert opened.merge("other").ending is theta.Ending.UP_TO_DATE
    opened.status()
    repo.fsck()


def test_a_strategy_settles(repo: Repo, opened: theta.Repository) -> None:
    sides = [opened[f"{name}:{MODEL}"][TENSOR].numpy() for name in ("main", "side")]
    result = opened.merge("side", strategy="average")
    assert result.ending is theta.Ending.MERGED
    (settled,) = result.settlement.settled
    assert (settled.path, dict(settled.decided)) == (MODEL, {TENSOR: "average"})
    assert np.allclose(merged(repo)[TENSOR], (sides[0] + sides[1]) / 2, atol=1e-6)


def test_rules_settle(repo: Repo, opened: theta.Repository) -> None:
    theirs = opened[f"side:{MODEL}"][TENSOR].numpy()
    result = opened.merge("side", tensors=theta.TensorOptions(rules=["layer.1.*=theirs"]))
    assert result.ending is theta.Ending.MERGED
    assert same(merged(repo)[TENSOR], theirs)


def test_a_conflict_is_a_result(repo: Repo, opened: theta.Repository) -> None:
    before = sha256(repo.path / MODEL)
    result = opened.merge("side")
    assert (result.ending, result.code) == (theta.Ending.CONFLICTS, 1)
    assert [conflict.name for conflict in result.settlement.conflicts[MODEL]] == [TENSOR]
    assert list(opened.status().conflicts) == [MODEL]
    with pytest.raises(NotFoundError, match="in conflict"):
        opened[f":{MODEL}"]
    with pytest.raises(RefusedError, match="earlier merge is not concluded"):
        opened.merge("other")
    assert opened.continue_merge().ending is theta.Ending.CONFLICTS
    assert opened.abort_merge().ending is theta.Ending.ABORTED
    assert sha256(repo.path / MODEL) == before
    assert repo.git("status", "--porcelain") == ""
    assert opened.merge("side").ending is theta.Ending.CONFLICTS
    assert opened.continue_merge("theirs").ending is theta.Ending.MERGED
    assert same(merged(repo)[TENSOR], opened[f"side:{MODEL}"][TENSOR].numpy())


def test_a_rehearsal_changes_nothing(repo: Repo, opened: theta.Repository) -> None:
    before = repo.git("rev-parse", "HEAD")
    result = opened.merge("side", strategy="ties", dry_run=True)
    assert result.ending is theta.Ending.REHEARSED
    assert TENSOR in [row.name for row in result.rows[MODEL]]
    assert (repo.git("rev-parse", "HEAD"), repo.git("status", "--porcelain")) == (before, "")


def test_a_merge_in_two_steps_and_one_without_history(repo: Repo, opened: theta.Repository) -> None:
    assert opened.merge("other", no_commit=True).ending is theta.Ending.PREPARED
    opened.commit("by hand")
    assert len(repo.git("log", "-1", "--format=%P").split()) == 2
    repo.git("reset", "-q", "--hard", "HEAD~1")
    repo.theta("restore", ".")
    assert opened.merge("other", squash=True).ending is theta.Ending.PREPARED
    opened.commit("squashed")
    assert len(repo.git("log", "-1", "--format=%P").split()) == 1


def test_merges_that_are_not_begun(repo: Repo, opened: theta.Repository) -> None:
    asks: list[tuple[type[Exception], Callable[[], Any]]] = [
        (UsageError, lambda: opened.merge("side", strategy="avrage")),
        (theta.ThetaError, lambda: opened.merge("gone")),
        (theta.ThetaError, opened.continue_merge),
        (RefusedError, opened.abort_merge),
    ]
    for kind, ask in asks:
        with pytest.raises(kind):
            ask()
    edit(repo, "head.weight")
    with pytest.raises((RefusedError, WouldOverwriteError)):
        opened.merge("other")
    assert repo.git("status", "--porcelain") == f" M {MODEL}"


def test_a_bare_repository_is_not_changed(repo: Repo, tmp_path: Path) -> None:
    repo.git("clone", "-q", "--bare", ".", str(tmp_path / "bare.git"))
    with theta.open(tmp_path / "bare.git") as bare:
        for ask in (
            lambda: bare.commit("x"),
            lambda: bare.merge("side"),
            lambda: bare.restore("."),
            bare.add,
        ):
            with pytest.raises(NoWorktreeError):
                ask()


def test_training_in_a_loop(repo: Repo, opened: theta.Repository) -> None:
    """Each version comes back as it was, from one repository that stays open."""
    digests = []
    for step in range(4):
        digests.append(edit(repo, TENSOR, 0.25))
        summary = opened.commit(f"step {step}", everything=True).summary
        assert summary is not None
    for back, digest in enumerate(reversed(digests)):
        opened.restore(MODEL, source=f"HEAD~{back}")
        assert sha256(repo.path / MODEL) == digest
