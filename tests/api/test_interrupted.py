"""A program that is interrupted in the middle of a call goes on in the same repository: a notebook, say."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

import theta
from tests.compat.inprocess import branched, committed, copied, started
from tests.compat.story import MODEL, TENSOR, edit
from tests.support import Repo, sha256
from theta import _fs

CALLS: dict[str, Callable[[theta.Repository], object]] = {
    "commit": lambda repo: repo.commit("step", everything=True),
    "restore": lambda repo: repo.restore(MODEL, source="HEAD~1"),
    "merge": lambda repo: repo.merge("side", strategy="average"),
}

STEPS = {"commit": 11, "restore": 5, "merge": 23}
"""Every so many changes of the disk there is an interruption."""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    repo = started(tmp_path_factory.mktemp("interrupted") / "repo")
    branched(repo, side=[(TENSOR, 3.0)])
    committed(repo, (TENSOR, 1.0))
    return repo


def interrupted(call: Callable[[], object], at: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Return whether ``call`` came to the change of the disk number ``at``, where Ctrl-C was pressed."""
    count = 0

    def step(_operation: str, _path: str) -> None:
        nonlocal count
        count += 1
        if count == at:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_fs, "on_step", step)
        try:
            call()
        except KeyboardInterrupt:
            return True
    return False


@pytest.mark.parametrize("name", CALLS)
def test_the_next_call_finds_all_in_order(
    template: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As before or as after, or a merge that can be given up; what is asked for again is done."""
    points, at = 0, 3
    while True:
        repo = copied(template, tmp_path / str(at))
        if name == "commit":
            edit(repo, TENSOR)
        before, content = repo.git("rev-parse", "HEAD"), sha256(repo.path / MODEL)
        with theta.open(repo.path) as opened:
            if not interrupted(lambda: CALLS[name](opened), at, monkeypatch):
                break
            points += 1
            report = opened.status()
            head = repo.git("rev-parse", "HEAD")
            assert head == before or name != "restore"
            assert not report.conflicts
            if report.operation:
                assert (name, report.operation) == ("merge", "merge")
                time.sleep(1.1)  # neither git nor the stat cache trusts a file of this second
                opened.abort_merge()
                assert sha256(repo.path / MODEL) == content
            if name == "commit":
                assert sha256(repo.path / MODEL) == content
            if head == before:
                CALLS[name](opened)
            assert opened.status().clean or name == "restore"
        repo.fsck()
        at += STEPS[name]
    assert points >= 2
