"""``theta blame``: the commit that last changed each tensor of a checkpoint.

As in ``git blame``, a commit passes what it has unchanged to the first parent that has it too, and is the
origin of the rest.  Equal ids of manifests pass all tensors without reading any.  The store of a checkpoint
never changes, so that a renamed file is found in the tree of a parent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from theta.errors import NotFoundError, no_tensor
from theta.git.object_values import Author
from theta.git.quoting import split_lines
from theta.porcelain.workspace.session import Session
from theta.store.format.manifest import Manifest


@dataclass(frozen=True)
class BlameRequest:
    """The tensors of the checkpoint at ``path``, from the root, that match the glob ``tensor``."""

    path: str
    revision: str = "HEAD"
    tensor: str = "*"


@dataclass(frozen=True)
class LastChange:
    """The commit that last changed the value of tensor ``name``; ``path`` is the file's name in it."""

    name: str
    commit: str
    author: Author
    subject: str
    path: str


@dataclass
class _Asked:
    """The tensors, name -> digest of the value, that a commit is asked for, and the file they are in."""

    path: str
    digests: dict[str, str] = field(default_factory=dict)


def is_checkpoint(session: Session, request: BlameRequest) -> bool:
    """Return whether the request names a checkpoint."""
    tip = session.repo.commit_of(request.revision)
    oid = _place(session, tip, request.path) if tip else None
    return oid is not None and session.manifest_or_none(oid) is not None


def blame(session: Session, request: BlameRequest) -> list[LastChange]:
    """Return the origin of each tensor, in the order of the checkpoint; raises :class:`NotFoundError`."""
    tip = session.repo.commit_of(request.revision)
    oid = _place(session, tip, request.path) if tip else None
    manifest = session.manifest_or_none(oid) if oid else None
    if tip is None or manifest is None:
        where = request.revision or "the index, which has no history"
        raise NotFoundError(f"there is no checkpoint {request.path} in {where}")
    wanted = {line.name: line.digest for line in manifest.lines if _fits(line.name, request.tensor)}
    if not wanted:
        error = no_tensor(request.tensor, manifest.by_name)
        error.concern(request.path)
        raise error
    found = {
        origin.name: origin for origin in _origins(session, tip, _Asked(request.path, wanted), manifest.store)
    }
    return [found[name] for name in wanted]


def _fits(name: str, glob: str) -> bool:
    return name == glob or fnmatchcase(name, glob)


def _origins(session: Session, tip: str, start: _Asked, store: str) -> Iterator[LastChange]:
    """Yield the origins of the tensors of ``start``, a commit after all that descend from it."""
    asked = {tip: start}
    rows = split_lines(session.repo.git().run("rev-list", "--topo-order", "--parents", tip).text)
    for oid, *parents in map(str.split, rows):
        if (here := asked.pop(oid, None)) is None:
            continue
        for parent in parents:
            _pass_on(session, here, _place(session, oid, here.path), parent, store, asked)
        if here.digests:
            commit = session.repo.commit(oid)
            subject = commit.message.partition("\n")[0]
            yield from (LastChange(name, oid, commit.author, subject, here.path) for name in here.digests)
        if not asked:
            return


def _pass_on(
    session: Session, here: _Asked, own: str | None, parent: str, store: str, asked: dict[str, _Asked]
) -> None:
    """Ask ``parent`` for the tensors of ``here`` that it has too, and for these only."""
    if not here.digests:
        return
    path, oid = here.path, _place(session, parent, here.path)
    if oid is None:
        path, oid = _renamed(session, parent, store)
    manifest = session.manifest_or_none(oid) if oid and oid != own else None
    same = here.digests if oid == own else _common(here.digests, manifest)
    if same:
        there = asked.setdefault(parent, _Asked(path))
        there.digests |= same
        here.digests = {name: digest for name, digest in here.digests.items() if name not in same}


def _common(digests: dict[str, str], manifest: Manifest | None) -> dict[str, str]:
    lines = manifest.by_name if manifest is not None else {}
    return {
        name: digest for name, digest in digests.items() if name in lines and lines[name].digest == digest
    }


def _place(session: Session, commit: str, path: str) -> str | None:
    """Return the id of the blob at ``path`` of a commit; None when there is none."""
    entry = session.repo.read_tree(session.repo.commit(commit).tree).get(path)
    return entry.id if entry is not None and entry.is_file else None


def _renamed(session: Session, commit: str, store: str) -> tuple[str, str | None]:
    """Return path and id of the checkpoint with the store ``store`` in a commit; None without one."""
    checkpoints = session.at(commit)
    path = checkpoints.of_store(store)
    return ("", None) if path is None else (path, checkpoints[path].oid)
