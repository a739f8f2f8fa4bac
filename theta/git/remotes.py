"""Remotes that are directories of this machine: git does not tell them how to sync."""

from __future__ import annotations

from theta.git.repository import Repository
from theta.git.run import DURABLE


def durable(repo: Repository) -> list[str]:
    """Options of ``git`` by which a push to a local directory syncs there what it writes.

    git keeps its configuration from the git that it starts in another repository.  A remote of
    another kind, or whose program is set by the user, is left alone: a server may allow one program only.
    """
    found: list[str] = []
    names = repo.git().run("remote", check=False).text.split()
    for name in names:
        if f"remote.{name}.receivepack" not in repo.raw.config and _is_local(repo, name):
            program = f"git -c {DURABLE[0]}={DURABLE[1]} receive-pack"
            found += ["-c", f"remote.{name}.receivepack={program}"]
    return found


def _is_local(repo: Repository, name: str) -> bool:
    urls = repo.git().run("remote", "get-url", "--push", "--all", name, check=False).text.splitlines()
    return bool(urls) and all(url.startswith(("/", "./", "../", "file://")) for url in urls)
