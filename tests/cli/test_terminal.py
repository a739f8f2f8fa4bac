"""theta on a terminal: pager, colours, columns and widths as git has them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.cells import cell_len

from tests.cli.checks import on_terminal
from tests.compat.story import MODEL, edit, new_model
from tests.support import Repo, make_model, random_tensors

PAGED = "PAGED:"
PAGER = f"sed s/^/{PAGED}/"
SGR = re.compile(r"\x1b\[[\d;]*m")


@pytest.fixture(scope="module")
def looked_at(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Two versions of a checkpoint, a third one that is not staged, and other files."""
    repo = Repo.create(tmp_path_factory.mktemp("terminal") / "repo")
    repo.theta("track", "*.safetensors")
    new_model(repo)
    repo.write("code.py", "one\n")
    repo.theta("add", ".")
    repo.theta("commit", "-m", "first")
    edit(repo, "layer.1.weight")
    repo.write("code.py", "two\n")
    repo.theta("commit", "-am", "second")
    edit(repo, "layer.2.weight")
    for name in ("new 1", "new2", "nëw3"):
        repo.write(name, "")
    return repo


def shown(repo: Repo, *args: str, **env: str) -> str:
    """Return what theta writes on a terminal, without the pager that the tests have by default."""
    return on_terminal(repo, *args, env={"GIT_PAGER": PAGER, **env}).replace("\r\n", "\n")


@pytest.mark.parametrize(
    ("line", "is_paged"),
    [
        ("diff HEAD~ HEAD", True),
        ("show", True),
        ("log --stat", True),
        (f"blame {MODEL}", True),
        ("du", True),
        ("help formats", True),
        ("-c pager.blame=false blame " + MODEL, False),
        ("--no-pager show", False),
        ("status", False),
        ("-p status", True),
        ("-c pager.status=true status", True),
        ("ls-files", False),
        ("--paginate ls-files", True),
    ],
)
def test_reports_go_to_the_pager_that_git_would_start(looked_at: Repo, line: str, is_paged: bool) -> None:
    """All that a command prints, git's part and theta's, goes through one pager, in order."""
    lines = SGR.sub("", shown(looked_at, *line.split())).splitlines()
    assert lines
    assert {text.startswith(PAGED) for text in lines} == {is_paged}


def test_the_pager_of_a_command_and_the_order_of_settings(looked_at: Repo) -> None:
    own = ("-c", "pager.diff=sed s/^/OWN:/", "-c", "core.pager=sed s/^/CORE:/", "diff", "HEAD~", "HEAD")
    environment = {"GIT_PAGER": "", "PAGER": "sed s/^/USER:/"}
    assert shown(looked_at, *own, **environment).startswith(MODEL)  # an empty one is none
    bare = {"GIT_PAGER": "env -u GIT_PAGER sed s/^/GIT:/"}
    assert shown(looked_at, *own, **bare).startswith("GIT:")


def test_less_gets_the_variables_that_git_gives_it(looked_at: Repo) -> None:
    told = shown(looked_at, "show", GIT_PAGER='echo "$LESS $LV $GIT_PAGER_IN_USE $COLUMNS"; cat >/dev/null')
    assert told == "FRX -c true 200\n"


def test_a_pager_that_is_not_installed_is_none(looked_at: Repo) -> None:
    """Containers have no less: git prints by itself, and so does theta; nothing was to be seen."""
    for line in (["show"], ["log", "-1"], ["help", "formats"]):
        told = shown(looked_at, *line, GIT_PAGER="less-that-nobody-has")
        assert "not found" not in told
        assert len(told.splitlines()) > 4, line


def test_a_pager_that_is_left_early_is_no_error(looked_at: Repo) -> None:
    command = [sys.executable, "-m", "theta", "-p", "help", "format"]
    for pager in ("true", "head -1"):
        told = shown(looked_at, "-p", "help", "format", GIT_PAGER=pager)
        assert "rror" not in told and len(told.splitlines()) <= 1, told
    done = subprocess.run(command, cwd=looked_at.path, stdout=subprocess.PIPE, check=True)
    assert PAGED.encode() not in done.stdout


def test_errors_come_behind_what_was_read(looked_at: Repo) -> None:
    told = shown(looked_at, "diff", "HEAD~", "nowhere")
    assert "error: " in told
    assert f"{PAGED}error" not in told


def test_what_theta_and_git_print_is_in_order_in_a_pipe(looked_at: Repo) -> None:
    """The tensors of a commit stood behind the patches of its files."""
    text = looked_at.theta("show").stdout
    assert text.index("second") < text.index("layer.1.weight") < text.index("diff --git a/code.py")


def test_rows_of_status_are_coloured_as_git_does(looked_at: Repo) -> None:
    """Git tells a checkpoint by the same letters; the colours are those of its settings."""
    for more in ([], ["-c", "color.status.changed=bold 5", "-c", "color.status.untracked=#ff0088 ul"]):
        settings = ["-c", "color.status=always", *more]
        by_git = looked_at.git(*settings, "status", "-s") + "\n"
        assert looked_at.theta(*settings, "status", "-s").stdout == by_git
        assert "\x1b" not in looked_at.theta(*settings, "status", "--porcelain").stdout
    at_length = looked_at.theta("-c", "color.ui=always", "status").stdout
    assert "\t\x1b[31mmodified:" in at_length and "\t\x1b[31mnew2\x1b[m" in at_length


@pytest.mark.parametrize(
    ("words", "env", "coloured"),
    [
        ([], {}, True),
        ([], {"NO_COLOR": "1"}, False),
        ([], {"TERM": "dumb"}, False),
        (["-c", "color.ui=false"], {}, False),
        (["-c", "color.diff=never"], {}, False),
        (["-c", "color.pager=no"], {}, False),
        (["--color=never"], {}, False),
        (["-c", "color.diff=always"], {"NO_COLOR": "1"}, True),
    ],
)
def test_tables_are_coloured_on_a_terminal_only(
    looked_at: Repo, words: list[str], env: dict[str, str], coloured: bool
) -> None:
    """The table is theta's; the patch below it is git's, which knows nothing of ``NO_COLOR``."""
    told = shown(looked_at, *words, "diff", "HEAD~", "HEAD", **env).partition("diff --git")[0]
    assert bool(re.search(r"\x1b\[33mM", told)) == coloured
    assert bool(SGR.search(told.rpartition("\n")[0])) == coloured


def test_colours_of_one_command(looked_at: Repo) -> None:
    line = ("diff", "HEAD~", "HEAD")
    assert "\x1b" not in looked_at.theta(*line).stdout
    assert "\x1b[33mM" in looked_at.theta(*line, "--color").stdout
    assert "\x1b" not in looked_at.theta("-c", "color.ui=always", *line, "--no-color").stdout
    assert "\x1b[36mM" in looked_at.theta("-c", "color.diff.changed=cyan", *line, "--color=always").stdout
    assert "\x1b[33mM\x1b[m layer.1.weight" in looked_at.theta("show", "--color=always").stdout
    assert "\x1b[33mcommit" in looked_at.theta("log", "--stat", "--color=always").stdout


def test_untracked_files_stand_in_columns(looked_at: Repo) -> None:
    settings = ["-c", "column.status=always", "-c", "core.quotePath=false"]
    rows = looked_at.git(*settings, "status").splitlines()
    (wanted,) = [row for row in rows if "new2" in row]
    looked_at.git("config", "column.status", "always")
    told = looked_at.theta("status").stdout.splitlines()
    assert [row.split() for row in told if "new2" in row] == [wanted.replace('"', "").split()]
    looked_at.git("config", "--unset", "column.status")


def test_tables_are_as_wide_as_they_need_to_be_in_a_pipe(looked_at: Repo) -> None:
    """On a terminal, and with COLUMNS, names are folded; a program gets one line a tensor."""
    line = [sys.executable, "-m", "theta", "diff", "--stats", "HEAD~", "HEAD", "--", MODEL]
    command = ["env", "-u", "COLUMNS", *line]
    done = subprocess.run(command, cwd=looked_at.path, capture_output=True, text=True, check=True)
    assert [row for row in done.stdout.splitlines() if row.startswith("M")]
    narrow = looked_at.theta("diff", "--stats", "HEAD~", "HEAD", "--", MODEL, env={"COLUMNS": "56"}).stdout
    assert max(map(len, narrow.splitlines()[1:])) <= 56


FORMS = ("--porcelain", "--porcelain=v1", "--porcelain=v2", "-s")
LINES = (
    *(f"{form}{more}" for form in FORMS for more in ("", " -z -b")),
    *(f"--porcelain=v2 {more}" for more in ("--no-ahead-behind -b", "-uno -z", "--show-stash", "-- .")),
)


def _without_stores(text: str, end: str) -> list[str]:
    return [row for row in text.split(end) if not re.search(r"(^| )\.theta/", row)]


@pytest.mark.parametrize("staged", [False, True])
def test_status_for_programs_is_what_git_lists(looked_at: Repo, tmp_path: Path, staged: bool) -> None:
    """One entry a checkpoint, in each format, and none for the files below .theta/."""
    repo = looked_at.copy(tmp_path / "twin")
    repo.git("branch", "side", "HEAD~")
    repo.git("branch", "-q", "--set-upstream-to=side")
    if staged:
        repo.theta("add", MODEL)
        repo.git("mv", "code.py", "renamed.py")
    for line in LINES:
        end = "\0" if "-z" in line else "\n"
        told = repo.theta("status", *line.split()).stdout
        wanted = repo.run("git", "status", *line.split()).stdout
        assert told.split(end) == _without_stores(wanted, end), line
        assert MODEL in told and ".theta" not in told, line


def test_a_signal_ends_the_git_that_theta_runs(looked_at: Repo, tmp_path: Path) -> None:
    """After a kill of theta git and its editor went on, and the commit was made."""
    repo = looked_at.copy(tmp_path / "twin")
    started = tmp_path / "started"
    editor = tmp_path / "editor"
    editor.write_text(f"#!/bin/sh\ntouch '{started}'\nexec sleep 30\n")
    editor.chmod(0o755)
    head = repo.git("rev-parse", "HEAD")
    command = [sys.executable, "-m", "theta", "commit", "-a"]
    child = subprocess.Popen(command, cwd=repo.path, env=os.environ | {"GIT_EDITOR": str(editor)})
    end = time.monotonic() + 20
    while not started.exists() and time.monotonic() < end:
        time.sleep(0.02)
    child.send_signal(signal.SIGTERM)
    assert child.wait(20) == 128 + signal.SIGTERM
    assert repo.git("rev-parse", "HEAD") == head
    assert not (repo.path / ".git" / "index.lock").exists()


def test_json_goes_to_programs_uncoloured(looked_at: Repo) -> None:
    told = looked_at.theta("-c", "color.ui=always", "diff", "--json", "HEAD~", "HEAD").stdout
    assert json.loads(told)["theta.diff/v1"]


@pytest.mark.parametrize("width", [200, 100, 80, 60, 40])
def test_lines_of_blame_fit_the_terminal(tmp_path: Path, width: int) -> None:
    """The time gives way, then the author, then the name is folded; ids and dates stay in one piece."""
    repo = Repo.create(tmp_path / "repo")
    repo.theta("track", "*.safetensors")
    names = [f"model.layers.{number:02}.self_attn.q_proj.weight" for number in range(12)]
    make_model(repo.path / MODEL, random_tensors(dict.fromkeys(names, (2,))))
    repo.theta("add", ".")
    ada = {"GIT_AUTHOR_NAME": "Augusta Ada King-Noel, Countess of Lovelace [伯爵夫人]"}
    repo.theta("commit", "-m", "first", env=ada)
    lines = shown(repo, "--no-pager", "blame", MODEL, COLUMNS=str(width)).splitlines()
    assert max(map(cell_len, lines)) <= width
    start = re.compile(rf"{repo.git('rev-parse', 'HEAD')[:10]} \(Augusta.*? +(2005-04-0\d.*?)\) (.*?) *$")
    rows = [found for line in lines if (found := start.match(line))]
    assert [row[1] for row in rows] == [rows[0][1]] * len(names)
    assert len(rows[0][1]) == (25 if width == 200 else 10)
    assert (len(lines) == len(names)) == (width >= 80)
    told = "".join(found[2] if (found := start.match(line)) else line.strip() for line in lines)
    assert told == "".join(names)
    assert len(repo.theta("blame", MODEL, env={"COLUMNS": str(width)}).stdout.splitlines()) == len(names)
