"""In a repository without checkpoints, git does what is asked: output, exit code, environment, hooks."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path

import pytest
import typer

from tests.support import Repo, make_model, random_tensors
from theta.cli import aside, untouched
from theta.cli.catalogue import COMMANDS, module_of
from theta.cli.passing import Passing
from theta.git import run as runner

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


LINE = "*.safetensors filter=theta diff=theta -text\n"


def given_elsewhere(repo: Repo, where: str) -> dict[str, str]:
    """Give the attributes of checkpoints ``where``; return the environment in which git finds them."""
    user = repo.path.parent / "user"
    (user / "git").mkdir(parents=True)
    if where == "folder":
        repo.write("m/.gitattributes", LINE)
    elif where == "root":
        repo.write(".gitattributes", LINE)
        repo.git("add", ".gitattributes")
    elif where == "ignored folder":
        repo.write("m/.gitattributes", LINE)
        repo.write(".git/info/exclude", ".gitattributes\n")
    else:
        name = "attributes" if where == "XDG" else "mine"
        (user / "git" / name).write_text(LINE)
    if where == "config":
        repo.git("config", "core.attributesFile", str(user / "git/mine"))
    if where == "config.worktree":
        repo.git("config", "extensions.worktreeConfig", "true")
        repo.git("config", "--worktree", "core.attributesFile", str(user / "git/mine"))
    return {"XDG_CONFIG_HOME": str(user)} if where == "XDG" else {}


@pytest.mark.parametrize(
    ("where", "stager"),
    (
        *((where, "theta") for where in ("folder", "ignored folder", "config", "XDG")),
        *((where, "git") for where in ("folder", "root", "config.worktree")),
    ),
)
def test_attributes_elsewhere_make_checkpoints(plain: Repo, tmp_path: Path, where: str, stager: str) -> None:
    """A checkpoint is never committed as raw bytes because its attributes are not those of the root."""
    repo = plain.copy(tmp_path / "repo")
    env = given_elsewhere(repo, where)
    (repo.path / "m").mkdir(exist_ok=True)
    model = make_model(repo.path / "m/a.safetensors", random_tensors({"w": (4, 4)})).read_bytes()
    if stager == "git":
        repo.git("add", "m", env=env)
        assert not repo.git("show", ":m/a.safetensors", env=env).startswith("theta checkpoint")
        elsewhere = repo.copy(tmp_path / "told")
        assert "plain bytes" in elsewhere.theta("doctor", env=env, code=None).stdout
    else:
        repo.theta("-C", "m", "add", ".", env=env)
    repo.theta("commit", "-qm", "a model", env=env)
    assert repo.git("show", "HEAD:m/a.safetensors", env=env).startswith("theta checkpoint")
    assert repo.git("ls-tree", "--name-only", "HEAD", ".theta/", env=env) != ""
    assert (repo.path / "m/a.safetensors").read_bytes() == model
    assert repo.git("status", "--porcelain", env=env) in ("", "?? m/.gitattributes")
    repo.theta("fsck", env=env)


@pytest.fixture(scope="module")
def with_model(plain: Repo, tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """``plain`` with a checkpoint on the branch ``model`` alone."""
    repo = plain.copy(tmp_path_factory.mktemp("model") / "repo")
    repo.git("switch", "-qc", "model")
    repo.theta("track", "*.safetensors")
    make_model(repo.path / "model.safetensors", random_tensors({"w": (4, 4)}))
    repo.theta("add", "-A")
    repo.theta("commit", "-qm", "a model")
    repo.git("switch", "-q", "main")
    return repo


@pytest.mark.parametrize(
    ("line", "by_git"),
    (
        ("restore --source origin/model --staged --worktree model.safetensors", False),
        ("restore --source origin/model --staged model.safetensors", False),
        ("restore --source origin/model model.safetensors", False),
        ("restore --source origin/model model.safetensors", True),
        ("checkout origin/model -- model.safetensors", False),
        ("checkout origin/model model.safetensors", True),
        ("reset -q origin/model -- model.safetensors", True),
    ),
)
def test_a_manifest_alone_brings_its_tensors(
    with_model: Repo, tmp_path: Path, line: str, by_git: bool
) -> None:
    """A checkpoint out of another branch is committed with its tensors, not as a text."""
    clone = with_model.clone(tmp_path / "clone")
    if by_git:
        clone.git(*line.split())
    else:
        said = clone.theta(*line.split()).stderr
        assert "model.safetensors is a checkpoint of another branch" in said
    file = clone.path / "model.safetensors"
    if file.exists():
        assert by_git == file.read_bytes().startswith(b"theta checkpoint")
        clone.theta("add", "model.safetensors")
    clone.theta("commit", "-qm", "taken over")
    assert clone.git("rev-parse", "HEAD:model.safetensors") == with_model.git(
        "rev-parse", "model:model.safetensors"
    )
    assert clone.git("rev-parse", "HEAD:.theta") == with_model.git("rev-parse", "model:.theta")
    clone.theta("restore", "model.safetensors")
    assert not file.read_bytes().startswith(b"theta checkpoint")
    assert clone.git("status", "--porcelain") == ""


def test_a_manifest_without_tensors_is_told(with_model: Repo, plain: Repo, tmp_path: Path) -> None:
    repo = plain.copy(tmp_path / "repo")
    repo.write("m.txt", with_model.git("show", "model:model.safetensors") + "\n")
    assert "its tensors are not in this repository" in repo.theta("add", "m.txt").stderr
    repo.write(".git/info/attributes", "*.txt -filter\n")
    assert "tensors" not in repo.theta("commit", "-qm", "a text").stderr


@pytest.mark.parametrize("name", (".theta-x", ".then"))
def test_an_index_of_version_4_is_opened(plain: Repo, tmp_path: Path, name: str) -> None:
    """Names are compressed there: ``theta/`` need not be in its bytes."""
    repo = plain.copy(tmp_path / "repo")
    repo.write(name, "before\n")
    repo.write(".theta/m/x", "stored\n")
    repo.git("add", "-A")
    repo.git("update-index", "--index-version", "4")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repo.path)
        assert untouched.here() is None


@pytest.mark.parametrize("is_compressed", (False, True))
def test_no_command_is_gits_where_a_folder_has_checkpoints(
    plain: Repo, tmp_path: Path, is_compressed: bool
) -> None:
    """Attributes of a folder are a sign of theta as those of the root are, for each command."""
    repo = plain.copy(tmp_path / "repo")
    repo.write("m/.gitattributes", LINE)
    repo.git("add", "m")
    repo.git("update-index", "--index-version", "4" if is_compressed else "2")

    def refused(*words: str, **_options: bool) -> int:
        raise AssertionError(words)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repo.path)
        patch.setattr(runner, "as_user", refused)
        patch.setattr(runner, "become", refused)
        for name in aside.OWN.keys() | aside.MOVE:
            assert aside.by_git(name, [], alone=True) is None, name


def test_a_commit_where_relative_variables_name_the_repository(repo: Repo) -> None:
    """A git that theta ran at the root of the worktree looked for GIT_DIR from there."""
    (repo.path / ".git").rename(repo.path / "place")
    repo.write("place/work/a", "one\n")
    place, places = Repo(repo.path / "place", repo.ticks), {"GIT_DIR": ".", "GIT_WORK_TREE": "work"}
    Repo(repo.path / "place/work", repo.ticks).git("add", "a", env={"GIT_DIR": "..", "GIT_WORK_TREE": "."})
    place.git("commit", "-qm", "one", env=places)
    repo.write("place/work/a", "two\n")
    place.theta("commit", "-qam", "two", env=places)
    assert place.git("show", "HEAD:a", env=places) == "two"
