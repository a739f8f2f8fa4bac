"""Reviews by machines: the steps of the action and the component, and git's difftool and mergetool."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import yaml

from tests.support import Repo, make_model, mutate, random_tensors
from tests.support.environment import ROOT
from theta.porcelain.setup import review_tools

MODEL: Final = "model.safetensors"
HERE: Final = ROOT / "theta" / "integrations"


@pytest.fixture
def reviewed(repo: Repo) -> Repo:
    """Two commits, in the second of which one of two tensors is doubled."""
    make_model(repo.path / MODEL, random_tensors({"a.weight": (8, 8), "b.weight": (8, 8)}))
    repo.theta("track", "*.safetensors")
    repo.theta("add", ".")
    repo.theta("commit", "-q", "-m", "base model")
    mutate(repo.path / MODEL, "a.weight", lambda value: value * np.float32(2))
    repo.theta("commit", "-q", "-am", "twice")
    return repo


def bash(repo: Repo, script: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a step as the services run it, with the theta under test on PATH."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    line = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    told = {**os.environ, "PATH": path, **env}
    return subprocess.run(line, cwd=repo.path, env=told, capture_output=True, text=True, check=False)


def steps() -> dict[str, str]:
    found: Any = yaml.safe_load((HERE / "github" / "action.yml").read_text())
    return {step["name"]: step["run"] for step in found["runs"]["steps"] if "run" in step}


def test_the_action_tells_what_changed(reviewed: Repo, tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    done = bash(
        reviewed,
        steps()["What changed"],
        BASE="HEAD~",
        RUNNER_TEMP=str(tmp_path),
        GITHUB_STEP_SUMMARY=str(summary),
    )
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "theta.md").read_text()
    assert text.startswith("<!-- theta -->\n")
    assert "a.weight" in text
    assert "b.weight" not in text
    assert summary.read_text() == text
    assert (tmp_path / "theta.html").stat().st_size > 0


@pytest.mark.parametrize(
    ("options", "code"),
    [("", 0), ("--frozen 'a*'", 1), ("--frozen 'b*' --max-change '*=2'", 0), ("--nope", 2)],
)
def test_the_action_fails_with_the_check(reviewed: Repo, options: str, code: int) -> None:
    done = bash(reviewed, steps()["Check"], BASE="HEAD~", OPTIONS=options)
    assert done.returncode == code, done.stderr
    assert (reviewed.path / "theta.sarif").exists() == (code != 2)


def test_words_of_an_option_are_no_commands(reviewed: Repo) -> None:
    """An input may come from others: it is words, whatever the shell would make of it."""
    done = bash(
        reviewed, steps()["Check"], BASE="HEAD~", OPTIONS="--frozen '$(touch stranger)' `touch stranger`"
    )
    assert done.returncode != 0
    assert not (reviewed.path / "stranger").exists()


def test_no_step_has_an_expression_in_its_script() -> None:
    """GitHub puts expressions into the text of a script, where a title of a pull request is code."""
    assert all("${{" not in script for script in steps().values())


@pytest.mark.parametrize("name", ["github/action.yml", "gitlab/theta.yml"])
def test_installing_runs_nothing_of_the_checkout(tmp_path: Path, name: str) -> None:
    """``python -m pip`` imports a ``pip.py`` of the folder it runs in, which is that of a pull request."""
    (tmp_path / "pip.py").write_text("print('of the checkout')\n")
    words = re.findall(r"python (-\S+ )*-m pip", (HERE / name).read_text())
    line = re.search(r"python .*-m pip", (HERE / name).read_text())
    assert line is not None
    assert len(words) == 1
    command = [sys.executable, *line[0].split()[1:], "--version"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "of the checkout" not in done.stdout


_GH = """\
#!/bin/sh
echo "$*" >> "{calls}"
case "$*" in *--paginate*) [ -z "{old}" ] || echo "{old}" ;; esac
"""


@pytest.mark.parametrize(("old", "method"), [("", "POST"), ("17", "PATCH repos/o/r/issues/comments/17")])
def test_a_comment_is_posted_once_and_fits(reviewed: Repo, tmp_path: Path, old: str, method: str) -> None:
    (bin_of := tmp_path / "bin").mkdir()
    calls, report = tmp_path / "calls", tmp_path / "theta.md"
    (bin_of / "gh").write_text(_GH.format(calls=calls, old=old))
    (bin_of / "gh").chmod(0o755)
    report.write_text(
        "<!-- theta -->\n" + "\N{GREEK SMALL LETTER DELTA}\N{GREEK SMALL LETTER DELTA} changed\n" * 10_000
    )
    path = f"{bin_of}{os.pathsep}{os.environ['PATH']}"
    script = f"PATH='{path}'\n{steps()['Comment']}"
    done = bash(reviewed, script, RUNNER_TEMP=str(tmp_path), NUMBER="3", REPOSITORY="o/r")
    assert done.returncode == 0, done.stderr
    asked, sent = calls.read_text().splitlines()
    assert '.user.type == "Bot"' in asked
    assert f"--method {method}" in sent
    assert len(report.read_text()) < 65_536
    assert report.read_text().startswith("<!-- theta -->\n")


def test_a_comment_that_fails_does_not_hide_the_check() -> None:
    found: Any = yaml.safe_load((HERE / "github" / "action.yml").read_text())
    (comment,) = (step for step in found["runs"]["steps"] if step.get("name") == "Comment")
    assert comment["continue-on-error"] is True


@pytest.mark.parametrize(("options", "code"), [("", 0), ("--frozen 'a*'", 1)])
def test_the_component_runs(reviewed: Repo, options: str, code: int) -> None:
    text = (HERE / "gitlab" / "theta.yml").read_text().split("\n---\n")[1]
    text = text.replace("$[[ inputs.check ]]", options)
    lines = [line for line in yaml.safe_load(text)["theta"]["script"] if "pip install" not in line]
    done = bash(reviewed, "\n".join(lines), CI_MERGE_REQUEST_DIFF_BASE_SHA=reviewed.git("rev-parse", "HEAD~"))
    assert done.returncode == code, done.stderr
    assert "a.weight" in (reviewed.path / "theta.md").read_text()
    assert (reviewed.path / "theta.xml").read_text().startswith("<?xml")


def test_difftool(reviewed: Repo) -> None:
    reviewed.theta("install")
    said = reviewed.run("git", "difftool", "--no-prompt", "--tool=theta", "HEAD~", "HEAD").stdout
    assert "1 changed of 2 tensors" in said
    assert re.search(r"a\.weight .*100\.000%", said)
    mutate(reviewed.path / MODEL, "b.weight", lambda value: value * np.float32(3))
    said = reviewed.run("git", "difftool", "--no-prompt", "--tool=theta").stdout
    assert re.search(r"b\.weight .*200\.000%", said)


def test_difftool_on_files_of_one_side(reviewed: Repo) -> None:
    reviewed.theta("install")
    (reviewed.path / "notes.txt").write_text("new\n")
    make_model(reviewed.path / "it's new.safetensors", random_tensors({"c.weight": (4, 4)}))
    reviewed.theta("add", ".")
    reviewed.theta("commit", "-q", "-m", "more")
    said = reviewed.run("git", "difftool", "--no-prompt", "--tool=theta", "HEAD~", "HEAD").stdout
    assert "c.weight" in said
    assert "+new" in said


def test_difftool_on_folders(reviewed: Repo) -> None:
    """``--dir-diff`` gives two folders, the second one with links to the worktree where that is compared."""
    reviewed.theta("install")
    (reviewed.path / "it's a [dir]").mkdir()
    make_model(reviewed.path / "it's a [dir]" / "--x.safetensors", random_tensors({"c.weight": (4, 4)}))
    reviewed.theta("add", ".")
    reviewed.theta("commit", "-q", "-m", "more")
    mutate(reviewed.path / MODEL, "b.weight", lambda value: value * np.float32(3))
    before = reviewed.git("ls-files", "--stage")
    said = reviewed.run("git", "difftool", "--dir-diff", "--tool=theta", "HEAD~").stdout
    assert re.search(r"b\.weight .*200\.000%", said)
    assert "c.weight" in said
    assert ".theta" not in said
    assert reviewed.git("ls-files", "--stage") == before


def conflict(repo: Repo) -> None:
    """Leave a merge in which both sides changed ``a.weight``."""
    repo.theta("switch", "-q", "-c", "side", "HEAD~")
    mutate(repo.path / MODEL, "a.weight", lambda value: value * np.float32(4))
    repo.theta("commit", "-q", "-am", "four times")
    repo.theta("install")
    assert repo.try_git("merge", "main").returncode == 1


def test_mergetool(reviewed: Repo) -> None:
    conflict(reviewed)
    reviewed.git("config", "mergetool.theta.strategy", "average")
    reviewed.git("mergetool", "--no-prompt", "--tool=theta")
    assert reviewed.git("diff", "--name-only", "--diff-filter=U") == ""
    reviewed.git("commit", "-q", "-m", "merged")
    assert "no problems" in reviewed.theta("fsck").stdout
    said = reviewed.theta("diff", "--json", "--stats", "HEAD~2", "HEAD").stdout
    assert "a.weight" in said


def test_mergetool_without_a_strategy_leaves_the_conflict(reviewed: Repo) -> None:
    conflict(reviewed)
    assert reviewed.try_git("mergetool", "--no-prompt", "--tool=theta").returncode == 1
    assert reviewed.git("diff", "--name-only", "--diff-filter=U") == MODEL


def test_uninstall_takes_the_tools_out(reviewed: Repo) -> None:
    reviewed.theta("install")
    assert reviewed.git("config", "difftool.theta.cmd") == review_tools.ENTRIES["difftool.theta.cmd"]
    reviewed.theta("uninstall")
    kept = reviewed.git("config", "--local", "--list")
    assert "tool.theta" not in kept
