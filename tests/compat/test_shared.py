"""Repositories that several users write to: modes follow the umask and core.sharedRepository, as git's do."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.compat.story import edit, new_model
from tests.support import Repo
from tests.support.confined import POWERLESS, as_root
from tests.support.environment import dated
from tests.support.repos import Done

OWNER, GROUP = 1234, 4321
GITS_OWN = {"COMMIT_EDITMSG"}
"""The files for which git itself ignores ``core.sharedRepository``."""
MEMBER = [*POWERLESS, "--regid=0", f"--groups=0,{GROUP}"]


class Shared(Repo):
    """A repository on which commands run with an umask, before which ``prefix`` stands."""

    umask = 0o022
    prefix: tuple[str, ...] = ()

    def run(self, *command: str, stdin: str | None = None, env: Mapping[str, str] | None = None) -> Done:
        """Run any command in the worktree."""
        self.ticks += 1
        return subprocess.run(
            [*self.prefix, *command],
            cwd=self.path,
            umask=self.umask,
            env=os.environ | dated(self.ticks) | dict(env or {}),
            input=stdin or "",
            capture_output=True,
            text=True,
            check=False,
        )


def shared(path: Path, sharing: str, umask: int) -> Shared:
    path.mkdir()
    repo = Shared(path)
    repo.afresh, repo.umask = True, umask
    repo.git("init", "--quiet", *([f"--shared={sharing}"] if sharing else []))
    repo.theta("track", "*.safetensors")
    new_model(repo)
    repo.theta("add", ".")
    repo.theta("commit", "-m", "model")
    edit(repo, "layer.1.weight")
    repo.git("status")  # the filter
    repo.theta("commit", "-am", "more")
    return repo


def wrong(repo: Repo, sharing: str, umask: int) -> list[str]:
    """The files of the repository whose modes are not those that git gives its own."""
    git_gives = {"": 0, "group": 0o660, "all": 0o664, "0640": 0o640}[sharing]
    found = []
    for path in sorted((repo.path / ".git").rglob("*")):
        if path.name in GITS_OWN:
            continue
        mode = stat.S_IMODE(path.lstat().st_mode)
        base = 0o777 if path.is_dir() or mode & 0o100 else 0o444 if not mode & 0o200 else 0o666
        bits = git_gives | (git_gives & 0o444) >> 2
        expected = base & bits if sharing == "0640" else base & ~(umask & ~bits)
        if mode & 0o777 != expected or (sharing and path.is_dir() and not mode & stat.S_ISGID):
            found.append(f"{path.relative_to(repo.path)} {mode:o} is not {expected:o}")
    return found


@pytest.mark.parametrize(
    ("sharing", "umask"),
    [("", 0o077), ("group", 0o077), ("group", 0o022), ("all", 0o077), ("0640", 0o002)],
)
def test_c4_modes_are_those_of_git(tmp_path: Path, sharing: str, umask: int) -> None:
    """Git's own files are in the comparison: the same rule holds for them."""
    repo = shared(tmp_path / "repo", sharing, umask)
    assert wrong(repo, sharing, umask) == []


@as_root
def test_c4_a_second_member_of_the_group_works_in_a_shared_repository(tmp_path: Path) -> None:
    """`.git/theta/lock` of the first user was closed to the second, where `git add` worked."""
    repo = shared(tmp_path / "repo", "group", 0o077)
    for path in [repo.path, *repo.path.rglob("*")]:
        mode = stat.S_IMODE(path.lstat().st_mode)
        os.chown(path, OWNER, GROUP)
        if ".git" not in path.parts:  # the worktree is the members' to share
            mode |= 0o060
        path.chmod(mode | (0o2070 if path.is_dir() else 0))
    for name in GITS_OWN:  # git itself cannot open that of another user
        (repo.path / ".git" / name).unlink()
    repo.prefix = tuple(MEMBER)
    refused = repo.theta("status", code=50)
    assert refused.stderr.splitlines()[0] == (
        f"error: detected dubious ownership in repository at '{repo.path}'"
    )
    assert refused.stderr.splitlines()[0].removeprefix("error") in repo.try_git("status").stderr
    repo.git("config", "--global", "--add", "safe.directory", str(repo.path))
    try:
        _work(repo)
    finally:
        repo.git("config", "--global", "--unset-all", "safe.directory")


def _work(repo: Shared) -> None:
    repo.theta("status")
    repo.theta("switch", "-c", "side")
    edit(repo, "layer.2.weight")
    repo.theta("commit", "-am", "a member's")
    repo.theta("switch", "main")
    edit(repo, "layer.0.weight")
    repo.git("commit", "-qam", "plain git")
    repo.theta("merge", "-X", "average", "side")
    repo.theta("fsck")
    theirs = {path for path in (repo.path / ".git").rglob("*") if path.lstat().st_uid == 0}
    assert theirs
    assert [str(path) for path in theirs if path.lstat().st_gid != GROUP] == []
    assert wrong(repo, "group", 0o077) == []
