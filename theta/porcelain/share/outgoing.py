"""The objects that a push would send, and those of them that are not here either."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from theta.errors import MissingObjectsError
from theta.git.object_format import BLOB, is_id
from theta.git.quoting import split_lines
from theta.porcelain.workspace.session import Session
from theta.units import human

ALLOWED: Final = "theta.pushMissing"
"""The setting with which git fetches objects that a remote lacks from another one, and sends them on."""
_FORMAT: Final = "%(objectname) %(objecttype) %(objectsize:disk)"


@dataclass(frozen=True)
class Outgoing:
    """The objects that a push of some commits would send.

    Attributes:
        blobs: the ids of the files -> bytes in a pack, in the order in which git sends them.
        others: bytes of the commits, trees and tags in a pack.
        missing: the objects that a lazy clone does not have.
    """

    blobs: Mapping[str, int] = field(default_factory=dict)
    others: int = 0
    missing: frozenset[str] = frozenset()

    @cached_property
    def size(self) -> int:
        """All bytes that are here, in a pack."""
        return self.others + sum(self.blobs.values())

    def without(self, blobs: Iterable[str]) -> Outgoing:
        """Return what is left to send when ``blobs`` are there already."""
        gone = frozenset(blobs)
        left = {oid: size for oid, size in self.blobs.items() if oid not in gone}
        return Outgoing(left, self.others, self.missing - gone)


def outgoing(session: Session, tips: Iterable[str], known: Iterable[str]) -> Outgoing:
    """Return the objects that ``tips`` need and a remote that has the commits ``known`` lacks."""
    here, missing = _listed(session, tips, known)
    rows = list(sizes(session, here))
    blobs = {oid: size for oid, kind, size in rows if kind == BLOB}
    return Outgoing(blobs, sum(size for _, kind, size in rows if kind != BLOB), frozenset(missing))


def missing(session: Session, tips: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return the objects of :func:`outgoing` that are not here."""
    return _listed(session, tips, known)[1]


def _listed(session: Session, tips: Iterable[str], known: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the objects to send that are here, and those that are not."""
    rows = [*tips, *(f"^{oid}" for oid in known if session.repo.has(oid))]
    words = ("rev-list", "--objects", "--no-object-names", "--missing=print", "--stdin")
    found = session.repo.git().run(*words, stdin="".join(f"{row}\n" for row in rows).encode()).text.split()
    return [oid for oid in found if oid[0] != "?"], [oid[1:] for oid in found if oid[0] == "?"]


def sizes(session: Session, oids: Sequence[str]) -> Iterator[tuple[str, str, int]]:
    """Yield (id, kind, bytes in a pack) of each object."""
    asked = "".join(f"{oid}\n" for oid in oids).encode()
    text = session.repo.git().run("cat-file", f"--batch-check={_FORMAT}", "--buffer", stdin=asked).text
    for row in split_lines(text):
        oid, kind, size = row.split()
        yield oid, kind, int(size)


def remote_commits(session: Session, remote: str) -> dict[str, str]:
    """Return ref -> object of what ``remote`` (a name or a URL) has now."""
    rows = session.repo.git().run("ls-remote", "--", remote).text.split("\n")
    return {ref: oid for oid, _, ref in (row.partition("\t") for row in rows) if is_id(oid)}


def refuse_missing(session: Session, remote: str, tips: Sequence[str]) -> None:
    """Raise :class:`MissingObjectsError` if a push from a lazy clone would send what is not here.

    git would fetch these objects from where they were promised, one after the other, and send them on.
    The remotes that promised them have them.
    """
    promised = session.repo.promised
    if not promised.is_partial or remote in promised.remotes:
        return
    lacking = missing(session, tips, remote_commits(session, remote).values())
    if lacking and not _is_allowed(session):
        size = human(_size(session, tips, frozenset(lacking)))
        raise MissingObjectsError(
            f"{remote} lacks {len(lacking)} objects (of {size}) that are not in this lazy clone either",
            hint=f"push from a full clone; or 'git -c {ALLOWED}=true push ...' fetches all and sends it on",
        )


def _is_allowed(session: Session) -> bool:
    """Return whether the setting is made, perhaps for one command, which git alone knows."""
    return session.repo.git().run("config", "--type=bool", "--get", ALLOWED, check=False).text == "true\n"


def _size(session: Session, tips: Sequence[str], lacking: frozenset[str]) -> int:
    """Return the bytes of the tensors of ``tips`` of which objects are lacking."""
    trees = {
        tree: size
        for tip in tips
        for manifest in session.at(tip).manifests.values()
        for tree, size in manifest.trees().items()
    }
    found = ((session.repo.tree_here(tree), size) for tree, size in trees.items())
    return sum(size for tree, size in found if tree and any(entry.id in lacking for entry in tree))


def total(session: Session, tips: Iterable[str]) -> int:
    """Return the bytes of a pack of all that ``tips`` need, as far as it is here."""
    words = ("rev-list", "--objects", "--disk-usage", "--missing=allow-any", *tips)
    return int(session.repo.git().run(*words).text)


def ancestors(session: Session, commits: Iterable[str]) -> list[str]:
    """Return the commits here that ``commits`` of a remote reach."""
    rows = "".join(f"{oid}\n" for oid in commits if session.repo.has(oid)).encode()
    return session.repo.git().run("rev-list", "--stdin", stdin=rows).text.split() if rows else []
