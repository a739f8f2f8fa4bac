"""Remotes that are local directories, to which git does not pass its configuration."""

from __future__ import annotations

from theta.git.repository import Repository
from theta.git.run import DURABLE


def durable(repo: Repository) -> list[str]:
    """Return options of git with which a push to a local directory syncs the files written there.

    git does not pass its configuration to the git it starts in another repository.  Other remotes, and
    those whose receivepack the user has set, are not changed: a server may allow only one program.
    """
    found: list[str] = []
    names = repo.git().run("remote", check=False).text.split()
    for name in names:
        if f"remote.{name}.receivepack" not in repo.config and _is_local(repo, name):
            program = f"git -c {DURABLE[0]}={DURABLE[1]} receive-pack"
            found += ["-c", f"remote.{name}.receivepack={program}"]
    return found


def _is_local(repo: Repository, name: str) -> bool:
    urls = repo.git().run("remote", "get-url", "--push", "--all", name, check=False).text.splitlines()
    return bool(urls) and all(url.startswith(("/", "./", "../", "file://")) for url in urls)
