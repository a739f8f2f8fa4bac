"""Remotes: which one is meant, what git does not pass on to one on this disk, and fetches apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from theta.git.quoting import split_lines
from theta.git.repository import Repository
from theta.git.run import DEFER, DURABLE, Git

_APART: Final = ("core.bare=true", "fetch.unpackLimit=1")
_FETCH: Final = ("--quiet", "--no-tags", "--no-write-fetch-head", "--recurse-submodules=no")


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
    urls = split_lines(repo.git().run("remote", "get-url", "--push", "--all", name, check=False).text)
    return bool(urls) and all(url.startswith(("/", "./", "../", "file://")) for url in urls)


def default(repo: Repository) -> str | None:
    """Return the remote that git push takes when none is named (git-push(1)); None when it would refuse."""
    branch = repo.branch
    keys = (f"branch.{branch}.pushremote", "remote.pushdefault", f"branch.{branch}.remote")
    found = next((name for key in keys if (name := repo.config.get(key))), None)
    names = repo.refs.remotes()
    return found or ("origin" if "origin" in names else names[0] if len(names) == 1 else None)


def push_urls(repo: Repository, remote: str) -> list[str]:
    """Return the URLs that git pushes to for ``remote``, a name or a URL."""
    done = repo.git().run("remote", "get-url", "--push", "--all", remote, check=False)
    return split_lines(done.text) if not done.code else [remote]


def standing_alone(repo: Repository, place: Path) -> Git:
    """Return a git for the repository at ``place``, which reads no other objects and fetches none unasked."""
    return _alone(repo, GIT_OBJECT_DIRECTORY=str(place / "objects"))


def _alone(repo: Repository, **more: str) -> Git:
    """Return a git without alternates of the user's environment, which fetches nothing unasked."""
    own = {"GIT_ALTERNATE_OBJECT_DIRECTORIES": "", "GIT_NO_LAZY_FETCH": "1"}
    return repo.git(extra={**DEFER, **own, **more})


def fetch_apart(
    repo: Repository, place: Path, settings: Sequence[str], words: Sequence[str], stdin: bytes | None = None
) -> None:
    """Fetch, as ``repo`` is configured, into a new repository at the empty directory ``place``.

    ``words`` are those of git fetch, after the options of each such fetch.  Its objects are in packs.
    No variable names its objects: a remote helper that runs git (``ext::``) would take them
    for those of the remote.
    """
    git, there = _alone(repo), f"--git-dir={place}"
    git.run(there, "init", "-q", "--bare", "--template=", f"--object-format={repo.format.name}")
    made = (f"include.path={repo.commondir / 'config'}", *_APART, *settings)
    options = [word for setting in made for word in ("-c", setting)]
    git.run(there, *options, "fetch", *_FETCH, *words, stdin=stdin)
