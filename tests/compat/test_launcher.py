"""Plain git where theta's environment was moved or deleted, and repositories that move."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.compat.agreement import assert_agreement
from tests.compat.made import once
from tests.compat.story import MODEL, commit, digest, edit, new_model
from tests.support import Repo, sha256
from tests.support.environment import EPOCH, GIT_CONFIG

LAUNCHER = ".git/info/theta-launcher"
TOOLS = ("git", "sh", "dd", "cat", "rm", "wc", "tr", "mktemp", "head", "sed", "cksum", "mkdir", "mv", "ps")
GONE = "theta: the theta of /gone/bin/python is gone, and there is none on PATH; "


@pytest.fixture
def bare_path(tmp_path: Path) -> Mapping[str, str]:
    """An environment whose PATH has git and the tools of a shell, and no theta."""
    place = tmp_path / "bin"
    place.mkdir()
    for name in TOOLS:
        found = shutil.which(name)
        assert found is not None
        (place / name).symlink_to(found)
    return {"PATH": str(place)}


def take_away(path: Path) -> None:
    """The environment that a launcher knows is deleted."""
    path.write_text(re.sub("(?m)^python=.*$", "python=/gone/bin/python", path.read_text(), count=1))


@pytest.fixture
def orphaned(tracked: Repo) -> Repo:
    """Two versions of a checkpoint, and the environment is gone."""
    once(tracked, two_versions)
    take_away(tracked.path / LAUNCHER)
    return tracked


def two_versions(repo: Repo) -> None:
    """Commit a second version and a second checkpoint."""
    commit(repo, "layer.1.weight")
    new_model(repo, "second.safetensors", seed=1)
    for name in (MODEL, "second.safetensors"):  # not as new as the index: git would read them again
        os.utime(repo.path / name, (EPOCH, EPOCH))
    repo.theta("commit", "-qam", "second")


def test_c7_checkout_leaves_manifests_with_one_line(orphaned: Repo, bare_path: Mapping[str, str]) -> None:
    new, second = digest(orphaned), digest(orphaned, "second.safetensors")
    done = orphaned.try_git("checkout", "-q", "HEAD~2", env=bare_path)
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith(GONE + "checkpoints are left as manifests; run 'theta install'")
    orphaned.git("checkout", "-q", "main", env=bare_path)
    for path in (MODEL, "second.safetensors"):
        manifest = orphaned.git("show", f"HEAD:{path}")
        assert (orphaned.path / path).read_text() in (manifest, manifest + "\n")
        (orphaned.path / path).touch()
    assert orphaned.git("status", "--porcelain", env=bare_path) == ""
    orphaned.theta("install")
    orphaned.theta("restore", ".")
    assert_agreement(orphaned, {MODEL: new, "second.safetensors": second})


def test_c7_clean_refuses_and_nothing_is_staged(orphaned: Repo, bare_path: Mapping[str, str]) -> None:
    before = orphaned.git("ls-files", "-s")
    edit(orphaned, "layer.2.weight")
    done = orphaned.try_git("add", MODEL, env=bare_path)
    assert done.returncode == 128
    assert f"theta: {MODEL} cannot be stored: {GONE[7:]}run 'theta install'" in done.stderr
    assert "'git config --remove-section filter.theta'" in done.stderr
    assert orphaned.git("ls-files", "-s") == before


def test_c7_a_manifest_that_nobody_stored_is_not_staged(orphaned: Repo, bare_path: Mapping[str, str]) -> None:
    """``git add`` of a manifest with a line appended ended with exit 0; git diff still shows the line."""
    (orphaned.path / MODEL).unlink()
    orphaned.git("checkout", "-q", "--", MODEL, env=bare_path)
    manifest = (orphaned.path / MODEL).read_text()
    before = orphaned.git("ls-files", "-s", MODEL)
    for text in (f"{manifest}appended\n", manifest[:-1], manifest.replace("sha256:", "sha256:0", 1)):
        (orphaned.path / MODEL).write_text(text)
        done = orphaned.try_git("add", MODEL, env=bare_path)
        assert done.returncode == 128
        assert f"theta: {MODEL} cannot be stored" in done.stderr
        assert orphaned.git("ls-files", "-s", MODEL) == before
    assert "sha256:0" in orphaned.git("diff", env=bare_path)
    (orphaned.path / MODEL).write_text(manifest)
    os.rename(orphaned.path / MODEL, orphaned.path / "moved.safetensors")
    orphaned.git("add", "-A", env=bare_path)
    assert orphaned.git("ls-files", "-s", "moved.safetensors").split()[1] == before.split()[1]


def test_c7_hooks_stop_only_what_concerns_checkpoints(orphaned: Repo, bare_path: Mapping[str, str]) -> None:
    orphaned.write("code.py", "other\n")
    assert orphaned.git("commit", "-q", "-am", "code", env=bare_path) == ""
    orphaned.git("rm", "-q", "--cached", MODEL, env=bare_path)
    done = orphaned.try_git("commit", "-q", "-m", "without", env=bare_path)
    assert (done.returncode, done.stderr.startswith(GONE)) == (1, True)
    orphaned.git("init", "-q", "--bare", "../there.git")
    done = orphaned.try_git("push", "-q", "../there.git", "HEAD", env=bare_path)
    assert (done.returncode, "--no-verify" in done.stderr) == (1, True)
    assert (
        orphaned.try_git("push", "-q", "--no-verify", "../there.git", "HEAD", env=bare_path).returncode == 0
    )


def test_c7_without_the_section_git_does_without(orphaned: Repo, bare_path: Mapping[str, str]) -> None:
    """The advice of the line works."""
    edit(orphaned, "layer.2.weight")
    orphaned.git("config", "--remove-section", "filter.theta", env=bare_path)
    assert orphaned.git("status", "--porcelain", env=bare_path) == f" M {MODEL}"
    orphaned.git("checkout", "-q", "--", MODEL, env=bare_path)


def test_c7_theta_on_the_path_is_found(orphaned: Repo) -> None:
    """No recorded environment: the one on PATH does the work."""
    new = edit(orphaned, "layer.2.weight")
    orphaned.git("commit", "-qam", "by PATH")
    take_away(orphaned.path / LAUNCHER)
    assert_agreement(orphaned, {MODEL: new})


def test_c7_without_the_launcher_theta_on_the_path_is_found(tracked: Repo) -> None:
    (tracked.path / LAUNCHER).unlink()
    new = edit(tracked, "layer.2.weight")
    tracked.git("commit", "-qam", "by PATH")
    assert_agreement(tracked, {MODEL: new})
    assert (tracked.path / LAUNCHER).is_file()


def test_c7_a_repository_moves_as_a_whole(
    tracked: Repo, tmp_path: Path, bare_path: Mapping[str, str]
) -> None:
    """Nothing holds the repository's path, linked worktrees aside, which git repairs."""
    tracked.git("worktree", "add", "-q", "../linked tree", "-b", "side")
    moved = Repo(tmp_path / "moved to 'here' $HOME")
    tracked.path.rename(moved.path)
    linked = Repo(tmp_path / "linked tree", tracked.ticks)
    moved.git("worktree", "repair", str(linked.path))
    for repo in (moved, linked):
        new = commit(repo, "layer.2.weight")
        assert_agreement(repo, {MODEL: new})
    time.sleep(1.1)  # git reads a file as new as the index through the filter
    linked.theta("status")
    take_away(moved.path / LAUNCHER)
    done = linked.try_git("-C", ".", "checkout", "-q", "HEAD~1", env=bare_path)
    assert (done.returncode, GONE in done.stderr) == (0, True)


def test_c7_nothing_in_configuration_and_hooks_has_a_path(tracked: Repo) -> None:
    texts = [tracked.path / ".git/config", *(tracked.path / ".git/hooks").iterdir()]
    for file in texts:
        text = file.read_text()
        assert str(tracked.path) not in text
        assert not re.search(r"(?m)^[^#]*(/bin/python|-m theta)", text), file


def test_c7_installed_for_all_repositories_of_a_user(
    tracked: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bare_path: Mapping[str, str]
) -> None:
    config = tmp_path / "gitconfig"
    config.write_text(GIT_CONFIG)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    tracked.theta("install", "--global")
    launcher = Path(os.environ["XDG_DATA_HOME"]) / "theta/theta-launcher"
    assert str(launcher.parent) not in config.read_text()
    assert tracked.clone(tmp_path / "one").git("status", "--porcelain") == ""
    assert sha256(tmp_path / "one" / MODEL) == digest(tracked)
    take_away(launcher)
    tracked.git("clone", "-q", tracked.path.as_uri(), str(tmp_path / "two"), env=bare_path)
    assert (tmp_path / "two" / MODEL).read_text().startswith("theta checkpoint 1\n")
    tracked.theta("uninstall", "--global")
    assert not launcher.exists()


def test_a_folder_of_the_repository_is_not_taken_for_theta(tracked: Repo) -> None:
    """No byte of a repository is run: not a package called theta in it either."""
    mark = tracked.path / "ran"
    for name in ("__init__.py", "__main__.py"):
        tracked.write(f"theta/{name}", f"open({str(mark)!r}, 'w')\n")
    interpreter = re.search("(?m)^python=(.*)$", (tracked.path / LAUNCHER).read_text())
    assert interpreter is not None
    tracked.afresh = True
    clone = Repo(tracked.path / ".." / "clone")
    tracked.run("theta", "clone", "-q", ".", str(clone.path))
    shutil.copytree(tracked.path / "theta", clone.path / "theta")
    mark.unlink(missing_ok=True)
    new = edit(clone, "layer.1.weight")
    clone.git("commit", "-qam", "beside a folder called theta")
    assert not mark.exists()
    assert_agreement(clone, {MODEL: new})
