"""Version, help, unknown commands, bad options and conflicting ones."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len

import theta
from tests.cli.checks import never_a_bug, on_terminal, refused
from tests.support import Repo, make_model, random_tensors
from tests.support.repos import Done
from theta.cli import console, topics
from theta.cli.catalogue import COMMANDS, PLUMBING
from theta.merging.strategies import registry

SIDES = ("ours", "theirs", "base")
NAMES = [name for group in COMMANDS.values() for name in group]


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """A repository with one committed checkpoint; the tests here change nothing of it."""
    repo = Repo.create(tmp_path_factory.mktemp("help") / "repo")
    repo.theta("track", "*.safetensors")
    make_model(repo.path / "m.safetensors", random_tensors({"w": (4, 4)}))
    repo.theta("add", "m.safetensors")
    repo.theta("commit", "-m", "one")
    return repo


def outside(tmp_path: Path, *args: str, afresh: bool = False) -> Done:
    """Run ``theta ARGS`` outside of any repository."""
    place = Repo(tmp_path)
    place.afresh = afresh
    return place.theta(*args, code=None)


@pytest.mark.parametrize("args", [["--help"], ["-h"], ["help"], []], ids=" ".join)
def test_the_overview_names_every_command(tmp_path: Path, args: list[str]) -> None:
    done = outside(tmp_path, *args, afresh=True)
    assert (done.returncode, done.stderr) == (0, "")
    words = {line.split()[0] for line in done.stdout.splitlines() if line.startswith("   ")}
    assert words == set(NAMES)
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_the_version_is_one_line(tmp_path: Path) -> None:
    done = outside(tmp_path, "--version", afresh=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("theta ")
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize("name", NAMES)
def test_help_of_a_command_works_without_a_repository(tmp_path: Path, name: str) -> None:
    done = outside(tmp_path, "help", name)
    never_a_bug(done)
    assert (done.returncode, done.stderr) == (0, "")
    assert "theta" in done.stdout


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("name", ["add", "commit", "merge", "restore", "status", "switch"])
def test_a_command_explains_itself(tmp_path: Path, name: str, flag: str) -> None:
    done = outside(tmp_path, name, flag, afresh=name == "add")
    assert (done.returncode, done.stderr) == (129 if flag == "-h" else 0, "")  # as git's commands end
    assert f"theta {name}" in done.stdout


SECOND = [
    "runs list",
    "runs show",
    "runs best",
    "runs prune",
    "runs publish",
    "bundle create",
    "bundle apply",
]


@pytest.mark.parametrize("words", [*SECOND, *PLUMBING])
def test_second_words_and_plumbing_explain_themselves_in_80_columns(tmp_path: Path, words: str) -> None:
    done = outside(tmp_path, *words.split(), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: theta {words.split()[0]}")
    assert max(map(len, done.stdout.splitlines())) <= 80


TOPICS = sorted(path.stem for path in (Path(theta.__file__).parent / "docs").glob("*.md"))


@pytest.mark.parametrize("topic", TOPICS)
@pytest.mark.parametrize("width", [80, 60])
def test_a_topic_fits_a_terminal(monkeypatch: pytest.MonkeyPatch, topic: str, width: int) -> None:
    """Pages are written in lines of 150; a terminal of 80 columns broke every one of them twice."""
    shown = io.StringIO()
    monkeypatch.setattr(console, "on_screen", lambda: True)
    monkeypatch.setattr(sys, "stdout", shown)
    monkeypatch.setenv("COLUMNS", str(width))
    assert topics.show_topic(topic) == 0
    lines = shown.getvalue().split("\n")
    assert max(map(cell_len, lines)) <= width
    assert "\x1b[4" not in shown.getvalue()


def test_help_on_nothing_known(tmp_path: Path) -> None:
    for word, meant in (
        ("xyzzy", ""),
        ("remote", "did you mean 'remotes'? "),
        ("mergge", "did you mean 'merge'? "),
        ("dare-tie", "did you mean 'dare_ties'? "),
    ):
        done = outside(tmp_path, "help", word)
        refused(done, 13, word)
        assert f"hint: {meant}'theta help topics' lists the topics" in done.stderr


@pytest.mark.parametrize("name", [name for name in registry.names() if name not in NAMES])
def test_a_strategy_is_explained(tmp_path: Path, name: str) -> None:
    """Its row of the table of the page on merging, and its formula."""
    done = outside(tmp_path, "help", name)
    assert (done.returncode, done.stderr) == (0, "")
    said = done.stdout.splitlines()
    assert said[0] == f"# The merge strategy {name}"
    assert [line.partition(":")[0] for line in said[2:6]] == ["- result", "- sides", "- base", "- parameters"]
    assert name in SIDES or any(f"`{name}`" in line for line in said[6:-2])


@pytest.mark.parametrize("word", ["topics", "-g", "--guides"])
def test_the_topics_are_listed(tmp_path: Path, word: str) -> None:
    """``theta help topics`` said that there is no such topic."""
    done = outside(tmp_path, "help", word)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split(maxsplit=1) for line in done.stdout.splitlines()[1:]]
    assert [name for name, _ in rows] == [name for name in TOPICS if name != "index"]
    assert all(title[0].isalnum() for _, title in rows)
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "theta help topics" in outside(tmp_path, "--help").stdout


@pytest.mark.parametrize("word", ["--help", "-h", "-a", "--all", "help"])
def test_help_on_help_is_the_overview(tmp_path: Path, word: str) -> None:
    assert outside(tmp_path, "help", word).stdout == outside(tmp_path, "--help").stdout


def test_the_manuals_are_packaged(tmp_path: Path) -> None:
    assert "theta checkpoint 1" in outside(tmp_path, "help", "format").stdout


def test_unknown_commands_are_those_of_git(repo: Repo) -> None:
    assert repo.theta("rev-parse", "HEAD").stdout.strip() == repo.git("rev-parse", "HEAD")
    assert repo.theta("cat-file", "-t", "HEAD").stdout == "commit\n"
    done = repo.theta("nonsense", code=1)
    assert "is not a git command" in done.stderr
    never_a_bug(done)


@pytest.mark.parametrize(
    ("args", "code", "word"),
    [
        (["trak"], 1, "did you mean 'track'"),
        (["comit"], 1, "did you mean 'commit'"),
        (["stauts"], 1, "did you mean 'status'"),
        (["shortlg"], 1, "did you mean 'shortlog'"),
        (["fsck", "--read-dta"], 2, "--read-data"),
        (["commit", "--jsno"], 129, "--json"),
        (["diff", "--stast"], None, "--stats"),
        (["log", "--tensr=x"], 128, "--tensor"),
        (["--colour=always", "status"], 2, "--color"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_f5_a_typo_is_answered_with_what_was_meant(
    repo: Repo, args: list[str], code: int | None, word: str
) -> None:
    """``theta trak`` went to git, which suggested "tag, var".  None: git's own code."""
    assert word in repo.theta(*args, code=repo.try_git(*args).returncode if code is None else code).stderr


def test_f5_color_stands_before_the_command(repo: Repo) -> None:
    """``--color=always`` printed git's usage."""
    assert "\x1b[" in repo.theta("--color=always", "diff", "HEAD~", "HEAD").stdout
    assert "\x1b[" in repo.theta("--color", "always", "log", "-1").stdout
    assert "\x1b[" not in repo.theta("--color=never", "diff", "HEAD~", "HEAD").stdout
    assert "always, never or auto" in repo.theta("--color=blue", "log", code=2).stderr


@pytest.mark.parametrize("name", NAMES)
def test_f7_help_names_operands_and_no_types(repo: Repo, name: str) -> None:
    """Flags had the type ``<bool>``, and usage lines did not say what to name."""
    said = repo.theta(name, "--help").stdout if name != "help" else "usage: theta help"
    assert said.startswith(f"usage: theta {name}")
    assert not {"<bool>", "<str>", "\u2502"} & set(said.split())
    alone = {"demo", "doctor", "du", "export-history", "fsck", "gc", "install", "undo", "uninstall"}
    assert said.splitlines()[0].endswith("[OPTIONS]") == (name in alone)
    assert max(map(len, said.splitlines())) <= 80


@pytest.mark.parametrize(
    "args",
    [
        ["-C"],
        ["track", "--nope"],
        ["fsck", "--nope"],
        ["add", "--nope", "m.safetensors"],
        ["hook"],
        ["untrack"],
    ],
    ids=" ".join,
)
def test_a_bad_option_is_a_usage_error(repo: Repo, args: list[str]) -> None:
    done = repo.theta(*args, code=None)
    never_a_bug(done)
    # 129 is git's own exit code for usage, which a command that hands its options on passes through.
    assert done.returncode in (2, 129), args
    assert done.stderr


@pytest.mark.parametrize(
    "name", ["status", "commit", "restore", "switch", "ls-files", "branch", "merge", "log"]
)
def test_an_option_that_git_does_not_know_either(repo: Repo, name: str) -> None:
    done = repo.theta(name, "--nope", *(["main"] if name == "merge" else []), code=None)
    never_a_bug(done)
    assert done.returncode in (2, 128, 129)
    assert "nope" in done.stderr


@pytest.mark.parametrize("name", ["commit", "status", "restore", "rm", "merge", "add", "push"])
def test_at_a_terminal_gits_usage_does_not_end_the_refusal(repo: Repo, name: str) -> None:
    """``theta commit --bogus`` printed 59 lines, the first of which said what was wrong.  Pipes get git's."""
    line = [name, "--bogus", "main"] if name == "merge" else [name, "--bogus"]
    *_, fault, hint = on_terminal(repo, *line).replace("\r\n", "\n").strip().split("\n")
    assert fault.startswith("error: ")
    assert "bogus" in fault
    assert hint == f"hint: theta {name} --help; git's options: git {name} -h"
    done, own = repo.theta(*line, code=129), repo.try_git(*line)
    assert (done.stderr, own.returncode) == (own.stderr, 129)


@pytest.mark.parametrize(
    "args",
    [
        ["merge", "--continue", "--abort"],
        ["merge", "-X", "ours", "-X", "theirs", "main"],
        ["merge", "-X", "nonsense", "main"],
        ["merge", "-X", "average:alpha=2", "main"],
        ["merge", "-X", "average:beta=2", "main"],
        ["merge"],
        ["restore", "--ours", "--theirs", "m.safetensors"],
        ["track", ""],
        ["track", "!*.pt"],
        ["track", ".theta/x"],
        ["track", "a\nb"],
    ],
    ids=" ".join,
)
def test_what_makes_no_sense_is_refused(repo: Repo, args: list[str]) -> None:
    before = repo.git("rev-parse", "HEAD"), repo.git("status", "--porcelain")
    refused(repo.theta(*args, code=None), 2)
    assert (repo.git("rev-parse", "HEAD"), repo.git("status", "--porcelain")) == before


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (["add", "nothere.safetensors"], "nothere"),
        (["diff", "nothere"], "nothere"),
        (["diff", "HEAD", "nothere"], "nothere"),
        (["log", "nothere"], "nothere"),
        (["merge", "nothere"], "nothere"),
        (["restore", "--source", "nothere", "m.safetensors"], "nothere"),
        (["show", "HEAD:m.safetensors#nothere"], "nothere"),
        (["untrack", "*.nothere"], "nothere"),
        (["-C", "nothere", "status"], "nothere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_does_not_exist_is_named(repo: Repo, args: list[str], word: str) -> None:
    refused(repo.theta(*args, code=None), 13, word)
