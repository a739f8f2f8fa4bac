"""``git theta``, the completion of lines by shells, and manual pages."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.support import Repo, make_model, random_tensors
from tests.support.environment import ROOT
from theta.cli import catalogue, completing, for_shells, option_names, shell_words
from theta.cli.passing import Passing

MODULES = sorted(
    {
        module
        for group in catalogue.COMMANDS.values()
        for name in group
        if (module := catalogue.module_of(name))
    }
    | {f"theta.cli.{module}" for module in catalogue._RUNS.values()}
)
NAMES = [f"layers.{number}.{part}" for number in range(40) for part in ("q proj", "norm")]


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """A checkpoint in a folder, names with blanks and quotes, two branches, a tag, a run with a metric."""
    repo = Repo.create(tmp_path_factory.mktemp("shells") / "repo")
    repo.theta("track", "*.safetensors")
    (repo.path / "a b").mkdir()
    make_model(repo.path / "a b/m.safetensors", random_tensors(dict.fromkeys([*NAMES, "head"], (2,))))
    repo.write("a b/it's $(x).txt", "text\n")
    repo.theta("add", "-A")
    repo.theta("commit", "-qm", "base")
    repo.git("branch", "side")
    repo.git("tag", "v1")
    step = repo.git("commit-tree", "HEAD^{tree}", "-m", "step\n\nTheta-Step: 1\nTheta-Metric: loss=.5")
    repo.git("update-ref", "refs/theta/runs/night", step)
    return repo


@pytest.fixture
def offered(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Return a function that tells what completes a line."""
    monkeypatch.chdir(repo.path)
    return lambda *line: completing.words(line)


@pytest.mark.parametrize("module", MODULES)
def test_the_options_that_are_offered_are_those_of_the_command(module: str) -> None:
    app = importlib.import_module(module).app
    command: Any = app.of_typer("x") if isinstance(app, Passing) else typer.main.get_command(app)
    options = [one for one in command.params if one.param_type_name == "option"]
    takes = {word: not one.is_flag for one in options for word in (*one.opts, *one.secondary_opts)}
    assert option_names.of_module(module) == option_names.Own(takes, isinstance(app, Passing))


def test_what_is_offered(offered: Callable[..., list[str]]) -> None:
    assert offered("theta", "sw") == ["switch "]
    assert {"stash ", "merge ", "status "} <= set(offered("theta", ""))
    assert offered("theta", "switch", "s") == ["side "]
    assert offered("git", "-c", "a=b", "theta", "switch", "s") == ["side "]
    assert offered("theta", "-C", "a b", "rm", "m") == ["m.safetensors "]
    assert {"HEAD ", "main ", "side ", "v1 "} == set(offered("theta", "merge", ""))
    assert offered("theta", "merge", "-X", "tie") == ["ties "]
    assert offered("theta", "merge", "--rule", "head=tie") == ["head=ties "]
    assert offered("theta", "merge", "--rule", "he") == ["head "]
    assert {"--rule ", "--dry-run ", "--no-ff "} <= set(offered("theta", "merge", "--"))
    assert offered("theta", "describe", "--ca") == ["--candidates="]
    assert offered("theta", "stash", "po") == ["pop "]
    assert offered("theta", "stash", "push", "--incl") == ["--include-untracked "]
    assert offered("theta", "fsck", "--rea") == ["--read-data "]
    assert offered("theta", "add", "a") == ["a b/"]
    assert offered("theta", "add", "a b/i") == ["a b/it's $(x).txt "]
    assert offered("theta", "runs", "n") == ["night "]
    assert offered("theta", "runs", "best", "night", "") == ["loss "]
    assert offered("theta", "log", "--run", "") == ["night "]
    assert offered("theta", "completion", "z") == ["zsh "]
    assert offered("theta", "help", "merging-") == ["merging-workflows "]


def test_tensors_are_offered_part_by_part(offered: Callable[..., list[str]]) -> None:
    place = "HEAD:a b/m.safetensors"
    assert offered("theta", "show", "HEAD:a") == ["HEAD:a b/"]
    assert offered("theta", "show", "HEAD:a b/m") == [place]
    assert offered("theta", "cat", f"{place}#") == [f"{place}#head ", f"{place}#layers."]
    assert f"{place}#layers.7." in offered("theta", "cat", f"{place}#lay")
    assert offered("theta", "cat", f"{place}#layers.7.") == [
        f"{place}#layers.7.norm ",
        f"{place}#layers.7.q proj ",
    ]


def test_a_deleted_file_can_be_restored_by_its_name(repo: Repo, offered: Callable[..., list[str]]) -> None:
    (repo.path / "code.py").unlink()
    assert offered("theta", "restore", "co") == ["code.py "]
    repo.git("checkout", "code.py")


WRONG = [
    ("theta", "show", "nobranch:x"),
    ("theta", "show", "HEAD:code.py#"),
    ("theta", "cat", "HEAD:a b/it's $(x).txt#"),
    ("theta", "runs", "best", "none", ""),
    ("theta", "-C", "/nowhere", "switch", ""),
    ("theta", "nosuch", "--"),
    ("theta", "add", "nowhere/"),
    ("theta", "show", "-x:y#z"),
    ("theta",),
    (),
]


@pytest.mark.parametrize("shell", ["zsh", "fish", "bash"])
def test_a_line_that_cannot_be_completed_is_no_error(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], shell: str
) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    for place in (repo.path, Path("/")):
        monkeypatch.chdir(place)
        for line in WRONG:
            words = [str(99), ":=", " ".join(line)] if shell == "bash" else line
            assert shell_words.complete([shell, *words]) == 0
    assert capfd.readouterr().err == ""


def shown(repo: Repo, *command: str) -> list[str]:
    done = repo.run(*command)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout.splitlines()


def test_bash_completes(repo: Repo) -> None:
    """The words are put in behind the last colon, quoted as bash reads them, also within quotes."""
    program = """
        eval "$(theta completion bash)"
        COMP_WORDBREAKS=$' \\t\\n"\\'@><=;|&(:'
        for COMP_LINE in "$@"; do COMP_POINT=${#COMP_LINE} _theta; printf '%s|' "${COMPREPLY[@]}"; echo; done
        complete -p theta
    """
    lines = [
        "theta sw",
        "git theta switch s",
        r"theta add a\ b/i",
        'theta rm "a b/i',
        r"theta show HEAD:a\ b/m",
    ]
    assert shown(repo, "bash", "-c", program, "bash", *lines) == [
        "switch |",
        "side |",
        r"a\ b/it\'s\ \$\(x\).txt |",
        "a b/it's $(x).txt|",
        r"a\ b/m.safetensors|",
        "complete -o nospace -F _theta theta",
    ]


def test_fish_completes(repo: Repo) -> None:
    program = """
        theta completion fish | source
        complete -C 'theta sw'; complete -C 'theta add a'; complete -C 'theta show HEAD:a\\\\ b/m'
    """
    place = "HEAD:a b/m.safetensors"
    assert shown(repo, "fish", "--no-config", "-c", program) == ["switch", "a b/", place, f"{place}#"]


def test_fish_completes_where_it_is_installed(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a new fish of the user does, with git's own completion beside it."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(for_shells, "_pages_folder", lambda data: data / "man1")
    for_shells.install(tmp_path)
    program = "complete -C 'git theta swi'; complete -C 'git theta cat HEAD:a\\ b/m.safetensors#he'"
    assert shown(repo, "fish", "-c", program) == ["switch", "HEAD:a b/m.safetensors#head"]
    for_shells.remove(tmp_path)
    assert not [place for place in tmp_path.rglob("*") if place.is_file() and "theta" in place.name]


def test_zsh_completes(repo: Repo) -> None:
    """The line editor of zsh runs in a terminal of its own (``zpty``), and prints the line that it has."""
    program = r"""
        zmodload zsh/zpty
        zpty t zsh -f -i
        zpty -w t 'PS1= PS2= ; stty -echo cols 200; autoload -U compinit; compinit -u -D'
        zpty -w t 'eval "$(theta completion zsh)"'
        zpty -w t 'show() { print -r -- "<<$BUFFER>>" }; zle -N show; bindkey ^X show'
        zpty -w t 'print READY'
        zpty -r t all '*READY*'
        for line in "$@"; do
            zpty -w -n t $line$'\t\x18'
            zpty -r t all '*<<*>>*'
            print -r -- ${${all##*<<}%%>>*}
            zpty -w -n t $'\x15'
        done
        zpty -d t
    """
    lines = ["theta sw", "theta add a", "theta switch s", "theta show HEAD:a\\ b/m"]
    found = shown(repo, "zsh", "-f", "-c", program, "zsh", *lines)
    assert found == [
        "theta switch ",
        "theta add a\\ b/",
        "theta switch side ",
        "theta show HEAD:a\\ b/m.safetensors",
    ]


def test_the_help_of_a_command_is_a_page_of_the_manual(tmp_path: Path) -> None:
    """``theta install --shell`` writes what shells and man find; ``uninstall --global`` removes it."""
    repo = Repo.create(tmp_path / "repo")
    env = {"XDG_DATA_HOME": str(tmp_path / "data")}
    program = "import sys; sys.prefix = sys.base_prefix; from theta.__main__ import main; sys.exit(main())"
    done = repo.run("python", "-c", program, "install", "--shell", env=env)
    assert done.returncode == 0, done
    written = {
        str(path.relative_to(tmp_path / "data")) for path in (tmp_path / "data").rglob("*") if path.is_file()
    }
    assert {
        "bash-completion/completions/git-theta",
        "zsh/site-functions/_theta",
        "man/man1/git-theta.1",
    } <= written
    assert f"MANPATH={tmp_path}/data/man:" in done.stdout
    page = (tmp_path / "data/man/man1/theta-merge.1").read_text()
    assert page.startswith(".TH") and "\\-\\-rule" in page and "git\\-merge" in page
    assert repo.run("python", "-c", program, "uninstall", "--global", env=env).returncode == 0
    assert [path for path in (tmp_path / "data").rglob("*") if path.is_file()] == []


def test_git_runs_theta(repo: Repo, tmp_path: Path) -> None:
    """``git theta`` is theta: below the top, by aliases, with git's options before it."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["git-theta"] == scripts["theta"]
    (tmp_path / "git-theta").symlink_to(Path(shell_path("theta")))
    env = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    repo.git("config", "alias.t", "theta")
    repo.git("config", "alias.tt", "t ls-files")
    repo.git("config", "alias.sh", "!git theta ls-files")
    for line in (["theta", "ls-files"], ["-C", ".", "t", "ls-files"], ["tt"], ["sh"]):
        assert repo.git(*line, env=env) == "a b/m.safetensors"
    repo_below = Repo(repo.path / "a b", repo.ticks)
    assert repo_below.git("tt", env=env) == "m.safetensors"
    assert repo_below.git("--git-dir", str(repo.path / ".git"), "theta", "rev-parse", "HEAD", env=env)
    wrong = repo_below.try_git("theta", "fscc", env=env)
    assert (wrong.returncode, wrong.stderr.splitlines()[-1]) == (1, "hint: did you mean 'fsck'?")


def test_the_page_of_git_theta_is_found_by_git(tmp_path: Path) -> None:
    """The page is installed below ``share/man``, beside ``bin``, and names manuals that are there."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert config["tool"]["setuptools"]["data-files"] == {"share/man/man1": ["theta/docs/git-theta.1"]}
    (named,) = re.findall(r"manual: (.*) and others", (ROOT / "theta/docs/git-theta.1").read_text())
    assert set(named.split(", ")) <= {path.stem for path in (ROOT / "theta/docs").glob("*.md")}


def shell_path(program: str) -> str:
    return subprocess.run(["which", program], capture_output=True, text=True, check=True).stdout.strip()
