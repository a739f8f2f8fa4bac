"""In a repository without checkpoints, git does what is asked: output, exit code, environment, hooks."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path

import pytest
import typer

from tests.support import Repo, make_model, random_tensors
from theta.cli import aside
from theta.cli.catalogue import COMMANDS, module_of
from theta.cli.passing import Passing

LINES = """
status
status --porcelain=v2 --branch -z
-c status.short=true status
commit -m more
commit -qm more a
commit -m none -- nothere
commit --dry-run -am x
add -v new
add nothere
add --bogus
rm a
rm --cached a
mv a c
restore a
restore --staged b
diff
diff --stat HEAD~ HEAD
diff --no-index a new
diff HEAD:a HEAD~:a
diff :/initial
diff HEAD^!
log --graph --oneline --all
log -L1,1:a
log --author nobody
log nobranch
show -s --format=%h
show --stat HEAD HEAD~
show v1
branch -vv
branch -d main
tag -n
tag -am annotated v2
switch other
switch nobranch
checkout other
checkout -- a
checkout -b new-one
reset
reset --hard HEAD~
reset --keep other
merge
cherry-pick
merge other
merge --no-ff --log other
merge nobranch
merge -X ours other
merge -s octopus other third
rebase
rebase other
rebase -X theirs other
cherry-pick other
cherry-pick -x other third
revert HEAD
stash
stash list
fetch nowhere
push nowhere
pull nowhere
cat-file -p HEAD
rev-parse HEAD
notes list
whatchanged
worktree list
""".strip().splitlines()
"""Run where ``a`` is changed, ``b`` is staged and ``new`` is untracked."""

CLEAN = ("merge", "rebase", "cherry-pick", "revert", "switch", "checkout")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """A repository that theta never saw: two branches, a tag, a hook, a replaced commit, an alias."""
    repo = Repo.create(tmp_path_factory.mktemp("plain") / "repo")
    for name in ("a", "b"):
        repo.write(name, f"{name}\n")
    repo.git("add", ".")
    repo.git("commit", "-qm", "two files")
    for branch in ("other", "third"):
        repo.git("switch", "-qc", branch, "main")
        repo.write(branch, "here\n")
        repo.git("add", branch)
        repo.git("commit", "-qm", f"on {branch}")
    repo.git("switch", "-q", "main")
    repo.git("tag", "v1")
    repo.git("commit", "--allow-empty", "-qm", "say hello")
    repo.git("replace", repo.git("rev-parse", "HEAD"), repo.git("rev-parse", "HEAD~"))
    for hook in ("pre-commit", "pre-merge-commit", "post-merge", "post-checkout"):
        repo.write(f".git/hooks/{hook}", f"#!/bin/sh\necho {hook} $*\n").chmod(0o755)
    return repo


@pytest.fixture(scope="module")
def dirty(plain: Repo, tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """``plain`` with changes of each kind."""
    repo = plain.copy(tmp_path_factory.mktemp("dirty") / "repo")
    repo.write("a", "changed\n")
    repo.write("b", "staged\n")
    repo.git("add", "b")
    repo.write("new", "new\n")
    return repo


def alike(template: Repo, tmp_path: Path, words: list[str], env: Mapping[str, str] | None = None) -> None:
    """Assert that theta does in one copy of ``template`` just what git does in another at the same place."""
    found = []
    for run in (Repo.try_git, lambda repo, *args, env: repo.theta(*args, code=None, env=env)):
        repo = template.copy(tmp_path / "repo")
        done = run(repo, *words, env=env)
        state = repo.git("status", "--porcelain", "-b"), repo.git("log", "--all", "--format=%H %an %cn %B")
        traces = sorted(
            str(path.relative_to(repo.path)) for path in repo.path.rglob("*") if "objects" not in path.parts
        )
        found.append((done.returncode, done.stdout, done.stderr.replace("\r", "\n"), state, traces))
        repo.path.rename(tmp_path / f"done-{len(found)}")
    for by_theta, by_git in zip(found[1], found[0], strict=True):
        assert by_theta == by_git


@pytest.mark.parametrize("line", LINES)
def test_a_line_is_gits(plain: Repo, dirty: Repo, tmp_path: Path, line: str) -> None:
    words = line.split()
    alike(plain if words[0] in CLEAN else dirty, tmp_path, words)


@pytest.mark.parametrize("line", ("add a", "status", "commit -m x"))
def test_an_index_elsewhere_is_gits(dirty: Repo, tmp_path: Path, line: str) -> None:
    """``GIT_INDEX_FILE`` is obeyed, and refused by name only beside checkpoints."""
    alike(dirty, tmp_path, line.split(), {"GIT_INDEX_FILE": ".git/other-index"})


def test_a_place_by_variables(plain: Repo, tmp_path: Path) -> None:
    alike(plain, tmp_path, ["-C", "..", "--git-dir=repo/.git", "--work-tree=repo", "status"])


def test_a_bare_repository(plain: Repo, tmp_path: Path) -> None:
    plain.git("clone", "-q", "--bare", ".", str(tmp_path / "bare"))
    bare = Repo(tmp_path / "bare")
    for words in (["reset", "--soft", "HEAD~"], ["diff", "v1", "other"], ["status"], ["log", "-1", "--stat"]):
        by_git, by_theta = bare.try_git(*words), bare.theta(*words, code=None)
        assert (by_git.returncode, by_git.stdout, by_git.stderr) == (
            by_theta.returncode,
            by_theta.stdout,
            by_theta.stderr,
        )


def test_new_checkpoints_are_told(plain: Repo, tmp_path: Path) -> None:
    """Staging and committing a checkpoint that no pattern covers still says how to track it."""
    repo = plain.copy(tmp_path / "repo")
    make_model(repo.path / "m.safetensors", random_tensors({"w": (4, 4)}))
    assert "theta track '*.safetensors'" in repo.theta("add", "m.safetensors").stderr
    assert "theta track" not in repo.theta("add", "a").stderr
    assert "theta track '*.safetensors'" in repo.theta("commit", "-qm", "a model").stderr


@pytest.mark.parametrize(
    "line", ("switch models", "merge models", "cherry-pick models", "reset --hard models")
)
def test_checkpoints_that_a_command_brings_are_filled_in(plain: Repo, tmp_path: Path, line: str) -> None:
    """A plain clone on a branch without checkpoints knows nothing of theta until one comes along."""
    source = plain.copy(tmp_path / "source")
    source.git("switch", "-qc", "models")
    source.theta("track", "*.safetensors")
    model = make_model(source.path / "m.safetensors", random_tensors({"w": (4, 4)}))
    source.theta("add", "-A")
    source.theta("commit", "-qm", "a model")
    source.git("switch", "-q", "main")
    wanted = source.git("cat-file", "-s", "models:m.safetensors")
    assert int(wanted) > 0
    clone = source.clone(tmp_path / "clone")
    clone.git("branch", "-q", "models", "origin/models")
    clone.theta(*line.split(), env={"GIT_EDITOR": "true"})
    source.git("switch", "-q", "models")
    assert (clone.path / "m.safetensors").read_bytes() == model.read_bytes()
    assert not (clone.path / ".theta").exists()
    assert clone.git("status", "--porcelain") == ""


def test_the_table_has_every_option_of_thetas_own() -> None:
    """A line with an option of theta's is not taken for git's."""
    for name in (name for group in COMMANDS.values() for name in group if name in aside.OWN):
        app = importlib.import_module(module_of(name) or "").app
        assert isinstance(app, Passing), name
        command = app.of_typer(name)
        words = {word for one in command.params for word in one.opts if word.startswith("--")}
        shared = {"--strategy-option", "--continue", "--abort", "--no-commit", "--help"}
        assert words - shared == aside.OWN[name], name
        assert isinstance(command, typer.core.TyperCommand)
