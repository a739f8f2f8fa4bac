"""``-q`` of git's commands that set something up, and an empty stash: nothing more than git prints."""

from __future__ import annotations

import shutil

import pytest

from tests.support import Repo


@pytest.mark.parametrize("line", ["init -q new", "init --quiet new", "clone -q . new"])
def test_what_is_set_up_quietly_is_not_told(tracked: Repo, line: str) -> None:
    done = tracked.theta(*line.split())
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("verb", ["pop", "apply"])
def test_an_empty_stash_has_no_status(tracked: Repo, verb: str) -> None:
    done = tracked.theta("stash", verb, code=1)
    assert (done.stdout, done.stderr) == ("", "No stash entries found.\n")


def test_the_reason_of_git_has_no_second_error(tracked: Repo) -> None:
    tracked.git("config", "gpg.program", str(shutil.which("false")))
    assert "error: error:" not in tracked.theta("sign", code=None).stderr
