"""Everyday command lines are read without git, and mean what git's own parser says."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theta.git import options
from theta.git.options import Arguments
from theta.git.run import Git

WORDS = {
    "add": ["-A", "-u", "-f", "--all", "--update", "-Au", "--force"],
    "commit": [
        "-a",
        "-m",
        "-am",
        "-mx",
        "-qam",
        "--message",
        "--message=a b",
        "--amend",
        "--no-edit",
        "--all",
    ],
    "diff": ["--cached", "--staged", "--stat", "--stat=80", "--name-only", "--exit-code"],
    "log": ["-n", "-n3", "--max-count=2", "--oneline", "--stat"],
    "restore": ["-s", "-sHEAD", "--source", "--source=HEAD~2", "-SW", "--staged", "--ours", "-q"],
    "status": ["-s", "--short", "--porcelain", "--porcelain=v2", "--porcelain="],
}
OTHERS = ["a", "b c", "", "-", "--", "--quie", "-x", "--no-all", "--mess", "--amend=no", "--end-of-options"]


class NoGit(Git):
    """A git that must not be asked."""

    def run(self, *args: str, **_: object) -> object:  # type: ignore[override]
        raise AssertionError(args)


@pytest.fixture(scope="module")
def git(tmp_path_factory: pytest.TempPathFactory) -> Git:
    git = Git(tmp_path_factory.mktemp("options"))
    git.run("init", "--quiet")
    return git


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_line_means_what_git_says(git: Git, data: st.DataObject) -> None:
    command = data.draw(st.sampled_from(sorted(WORDS)))
    line = data.draw(st.lists(st.sampled_from([*WORDS[command], *OTHERS]), max_size=5))
    found = options.read(git, command, line)
    assert found == options.read(git, command, line, ["--only-of-theta"])


@pytest.mark.parametrize(
    ("command", "line", "names"),
    [
        ("commit", ["-a", "-m", "words"], ["--all", "--message"]),
        ("commit", ["-qam", "words", "--", "m.pt"], ["--quiet", "--all", "--message"]),
        ("restore", ["--source", "HEAD~1", "m.pt"], ["--source"]),
        ("status", ["--porcelain"], ["--porcelain"]),
        ("add", ["-A"], ["--all"]),
    ],
)
def test_an_everyday_line_starts_no_git(command: str, line: list[str], names: list[str]) -> None:
    found = options.read(NoGit(Path("/")), command, line)
    assert [option.name for option in found.options] == names
    assert found.known


def test_what_is_not_everyday_is_for_git(git: Git) -> None:
    with pytest.raises(AssertionError):
        options.read(NoGit(Path("/")), "commit", ["--mess", "abbreviated"])
    assert options.read(git, "commit", ["--mess", "abbreviated"]) == Arguments(
        ("--mess", "abbreviated"), True, (options.Option("--message", "abbreviated"),)
    )
