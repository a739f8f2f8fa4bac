"""Partial clones: the blobs of a checkpoint are fetched when they are wanted, in one batch."""

from __future__ import annotations

from theta.errors import MissingObjectsError
from theta.porcelain.session import Session
from theta.store.manifest import Manifest


def promisor(session: Session) -> str | None:
    """The remote that owes this clone its missing objects; none in a full clone."""
    found = session.repo.git().run("config", "--get-regexp", r"^remote\..*\.promisor$", check=False)
    for row in found.text.splitlines():
        key, _, value = row.partition(" ")
        if value == "true":
            return key.removeprefix("remote.").removesuffix(".promisor")
    return None


def fetch_missing(session: Session, manifest: Manifest) -> None:
    """Fetch what ``manifest`` needs and this clone lacks; does nothing in a full clone.

    git would fetch blob by blob; one request brings them all.
    """
    if not session.repo.is_partial:
        return
    missing = {oid for tree in _trees(manifest) for oid in _blobs(session, tree) if not session.repo.has(oid)}
    remote = promisor(session) if missing else None
    if remote is None:
        return
    command = ["-c", "fetch.negotiationAlgorithm=noop", "fetch", remote, "--no-tags", "--no-write-fetch-head"]
    command += ["--recurse-submodules=no", "--filter=blob:none", "--stdin"]
    session.repo.git().run(*command, stdin="\n".join(sorted(missing)).encode() + b"\n")
    session.objects.refresh()


def _trees(manifest: Manifest) -> set[str]:
    return {manifest.skeleton} | {line.tree for line in manifest.lines}


def _blobs(session: Session, tree: str) -> set[str]:
    try:
        return {oid for _, oid in session.objects.tree(tree).values()}
    except MissingObjectsError:
        return set()
