"""Hooks by git's configuration, where git has that (2.54): the directory of hooks is the user's alone.

``--git-tree`` names a built tree of such a git, whose own hooks then run.  Otherwise a program stands before
the installed one: it says that it is 2.54, and has hooks do what git 2.54 does with ``hook.NAME.command``.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from tests.compat.agreement import assert_agreement
from tests.compat.story import MODEL, digest, edit, new_model
from tests.support import Repo
from tests.support.environment import GIT_CONFIG
from theta.porcelain.setup import configured_hooks
from theta.porcelain.setup.installing import HOOKS

_GIT = """\
#!/bin/sh
case $1 in
--version) echo 'git version 2.54.0'; exit ;;
esac
exec '{real}' --exec-path='{programs}' -c core.hooksPath='{hooks}' "$@"
"""
_OLDER = """\
#!/bin/sh
case $1 in
--version) echo 'git version 2.53.0' ;;
*) exec '{real}' "$@" ;;
esac
"""
_HOOK = """\
#!/bin/sh
event=$(basename "$0") code=0 given=$(mktemp)
case $event in post-rewrite | pre-push) cat >"$given" ;; esac
for key in $(git config --name-only --get-regexp '^hook[.].*[.]event$' "^$event\\$"); do
	name=${{key#hook.}} name=${{name%.event}}
	command=$(git config "hook.$name.command")
	sh -c "$command \\"\\$@\\"" "$command" "$@" <"$given" || code=1
done
file=$(git rev-parse --git-common-dir)/hooks/$event
[ ! -x "$file" ] || "$file" "$@" <"$given" || code=1
rm -f "$given"
exit $code
"""


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> dict[str, str]:
    """An environment whose git has hooks by configuration."""
    path = os.environ["PATH"]
    if given := pytestconfig.getoption("--git-tree"):
        return {"PATH": f"{Path(given).resolve() / 'bin-wrappers'}:{path}"}
    place = tmp_path_factory.mktemp("newer")
    (hooks := place / "hooks").mkdir()
    for name in HOOKS:
        _program(hooks / name, _HOOK.format())
    (programs := place / "programs").mkdir()  # git puts them first in the PATH of hooks and filters
    known = subprocess.run(["git", "--exec-path"], capture_output=True, text=True, check=True)
    for one in Path(known.stdout.strip()).iterdir():
        if one.name != "git":
            (programs / one.name).symlink_to(one)
    _program(programs / "git", _GIT.format(real=shutil.which("git"), hooks=hooks, programs=programs))
    return {"PATH": f"{programs}:{path}"}


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment whose git says that it has no hooks by configuration."""
    place = tmp_path_factory.mktemp("older")
    _program(place / "git", _OLDER.format(real=shutil.which("git")))
    return {"PATH": f"{place}:{os.environ['PATH']}"}


def _program(place: Path, text: str) -> None:
    place.write_text(text)
    place.chmod(place.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def configured(tmp_path: Path, newer: dict[str, str]) -> Repo:
    """A repository with a checkpoint, set up where git has hooks by configuration."""
    repo = Repo.create(tmp_path / "repo")
    shutil.rmtree(repo.path / ".git/hooks", ignore_errors=True)
    repo.theta("track", "*.safetensors", env=newer)
    new_model(repo)
    repo.theta("add", ".", env=newer)
    repo.theta("commit", "-qm", "first", env=newer)
    return repo


def hook_files(repo: Repo) -> list[str]:
    directory = repo.path / ".git/hooks"
    return sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []


def test_no_file_of_a_hook_is_written_and_plain_git_makes_whole_commits(
    configured: Repo, newer: dict[str, str]
) -> None:
    assert hook_files(configured) == []
    assert configured.git("config", "hook.theta-pre-commit.event") == "pre-commit"
    edit(configured, "layer.1.weight")
    configured.git("commit", "-qam", "by git", env=newer)
    assert_agreement(configured, {MODEL: digest(configured)})
    assert configured.theta("doctor", env=newer).stdout == "nothing is wrong\n"
    configured.git("switch", "-qc", "side", env=newer)
    edit(configured, "layer.2.weight")
    configured.git("commit", "-qam", "side", env=newer)
    configured.git("switch", "-q", "main", env=newer)
    configured.git("merge", "-q", "--no-ff", "--no-edit", "side", env=newer)
    assert_agreement(configured, {MODEL: digest(configured)})


def test_the_hooks_of_the_user_run_where_they_are(configured: Repo, newer: dict[str, str]) -> None:
    """A hook that stages something runs behind theta's, so that the commit is looked at again."""
    place = configured.path / ".git/hooks/pre-commit"
    place.parent.mkdir(exist_ok=True)
    other = configured.path / "other.safetensors"
    _program(place, "#!/bin/sh\ncp model.safetensors other.safetensors\ngit add other.safetensors\n")
    edit(configured, "layer.1.weight")
    configured.git("commit", "-qam", "with a hook", env=newer)
    assert hook_files(configured) == ["pre-commit"]
    assert_agreement(configured, {MODEL: digest(configured), other.name: digest(configured, other.name)})


def test_raw_bytes_are_refused(configured: Repo, newer: dict[str, str]) -> None:
    edit(configured, "layer.1.weight")
    configured.git("-c", "filter.theta.process=", "-c", "filter.theta.required=false", "add", MODEL)
    done = configured.try_git("commit", "-m", "raw", env=newer)
    assert done.returncode and "staged as raw bytes" in done.stderr


def test_a_push_is_checked(configured: Repo, newer: dict[str, str], tmp_path: Path) -> None:
    """The hook reads what is pushed from its input."""
    configured.git("init", "-q", "--bare", str(tmp_path / "there.git"))
    rows = [row for row in configured.git("ls-tree", "HEAD").splitlines() if ".theta" not in row]
    tree = configured.run("git", "mktree", stdin="".join(f"{row}\n" for row in rows)).stdout.strip()
    broken = configured.git("commit-tree", tree, "-p", "HEAD", "-m", "without its tensors")
    done = configured.try_git("push", str(tmp_path / "there.git"), f"{broken}:refs/heads/main", env=newer)
    assert done.returncode and "lacks objects of its checkpoints" in done.stderr
    configured.git("push", "-q", str(tmp_path / "there.git"), "main", env=newer)


def test_an_older_git_gets_files_and_a_newer_one_settings_again(
    configured: Repo, newer: dict[str, str], older: dict[str, str]
) -> None:
    said = configured.theta("doctor", code=None, env=older).stdout
    assert "hooks by configuration that this git runs" in said
    configured.theta("status", env=older)
    assert set(hook_files(configured)) == {*HOOKS}
    assert not (configured.path / ".git" / configured_hooks.SETTINGS).exists()
    assert configured.try_git("config", "hook.theta-pre-commit.event").returncode
    configured.theta("status", env=newer)
    assert set(hook_files(configured)) == {*HOOKS}, "what works stays"
    configured.theta("install", env=newer)
    assert hook_files(configured) == []
    assert configured.theta("doctor", env=newer).stdout == "nothing is wrong\n"


def test_files_of_the_user_come_back_and_uninstall_leaves_nothing(
    tmp_path: Path, newer: dict[str, str], older: dict[str, str]
) -> None:
    repo = Repo.create(tmp_path / "repo")
    shutil.rmtree(repo.path / ".git/hooks", ignore_errors=True)
    place = repo.path / ".git/hooks/pre-commit"
    place.parent.mkdir()
    _program(place, "#!/bin/sh\necho mine\n")
    before = (repo.path / ".git/config").read_text()
    repo.theta("track", "*.safetensors", env=older)
    assert "pre-commit.before-theta" in hook_files(repo)
    repo.theta("install", env=newer)
    assert hook_files(repo) == ["pre-commit"]
    assert place.read_text() == "#!/bin/sh\necho mine\n"
    repo.theta("uninstall", env=newer)
    assert hook_files(repo) == ["pre-commit"]
    left = (repo.path / ".git/config").read_text()
    assert "theta" not in left.replace(before, "").replace("[filter", "").lower() or "theta-hooks" not in left
    assert not [path for path in (repo.path / ".git/info").iterdir() if path.name.startswith("theta-hooks.")]


def test_a_linked_worktree_and_a_moved_repository(
    configured: Repo, newer: dict[str, str], tmp_path: Path
) -> None:
    """Settings and scripts name no place."""
    moved = Repo(Path(shutil.move(configured.path, tmp_path / "moved")), configured.ticks)
    moved.git("worktree", "add", "-q", str(tmp_path / "linked"), "-b", "side", env=newer)
    linked = Repo(tmp_path / "linked", moved.ticks)
    edit(linked, "layer.1.weight")
    linked.git("commit", "-qam", "in a linked worktree", env=newer)
    assert_agreement(linked, {MODEL: digest(linked)})


def test_a_clone_by_plain_git_has_files(
    configured: Repo, newer: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The filter sets the clone up; the git that runs it has read its settings, and looks for files yet."""
    (config := tmp_path / "gitconfig").write_text(GIT_CONFIG)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    configured.theta("install", "--global", env=newer)
    configured.git("clone", "-q", configured.path.as_uri(), str(tmp_path / "clone"), env=newer)
    cloned = Repo(tmp_path / "clone", configured.ticks)
    assert {*HOOKS} <= set(hook_files(cloned))
    assert cloned.git("status", "--porcelain", env=newer) == ""
    assert_agreement(cloned, {MODEL: digest(configured)})
    cloned.theta("install", env=newer)
    assert not {*HOOKS} & set(hook_files(cloned))
