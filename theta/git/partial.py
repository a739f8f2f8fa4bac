"""Partial clones: objects that a remote still owes are fetched in one request."""

from __future__ import annotations

from collections.abc import Iterable

from theta.git.repository import Repository


def promisor(repo: Repository) -> str | None:
    """The remote that owes this clone its missing objects; none in a full clone."""
    found = repo.git().run("config", "--get-regexp", r"^remote\..*\.promisor$", check=False)
    for row in found.text.splitlines():
        key, _, value = row.partition(" ")
        if value == "true":
            return key.removeprefix("remote.").removesuffix(".promisor")
    return None


def fetch(repo: Repository, missing: Iterable[str]) -> None:
    """Fetch the objects ``missing``, all at once (git would fetch one by one)."""
    wanted = sorted(set(missing))
    remote = promisor(repo) if wanted else None
    if remote is None:
        return
    command = ["-c", "fetch.negotiationAlgorithm=noop", "fetch", remote, "--no-tags", "--no-write-fetch-head"]
    command += ["--recurse-submodules=no", "--filter=blob:none", "--stdin"]
    repo.git().run(*command, stdin="\n".join(wanted).encode() + b"\n")
