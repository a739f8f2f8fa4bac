"""``theta du``: the stored bytes of checkpoints, tensors, commits and branches, and what would become free.

Bytes are those on this disk, compressed, as ``git cat-file`` tells them.  An object that several share counts
for each of them, and becomes free with none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Final

from theta.errors import UsageError
from theta.git.quoting import split_lines
from theta.git.repository import STORES, Repository
from theta.porcelain.workspace.session import Session

OTHERS: Final = "(other files, manifests)"
HEADERS: Final = "(headers of files)"
_SKELETON: Final = "@skeleton"
EVERYTHING: Final = ("--all", "--reflog", "--indexed-objects")
"""The revisions that keep objects: refs, reflogs and indexes of all worktrees."""
_SEEN: Final = ("--missing=allow-any", "--ignore-missing")


@dataclass(frozen=True)
class Cost:
    """The bytes of one thing.

    Attributes:
        name: of the thing: a path, a group of tensors, the id of a commit, or a ref.
        stored: the bytes of all its objects.
        freed: the bytes that would become free without it, once nothing remembers it.
        note: the subject of a commit; empty for others.
    """

    name: str
    stored: int
    freed: int
    note: str = ""


@dataclass(frozen=True)
class Usage:
    """The bytes of all objects, of those that nothing reaches any more, and of each thing, largest first."""

    total: int
    unreachable: int
    rows: tuple[Cost, ...]


@dataclass(frozen=True)
class _Placed:
    """A blob that a commit brought to a path."""

    commit: str
    path: str
    oid: str


def usage(session: Session, by: str = "checkpoint") -> Usage:
    """Return what things of the kind ``by`` cost; raises :class:`UsageError` for another word."""
    if by not in KINDS:
        raise UsageError(f"nothing is counted by {by}", hint=f"one of {', '.join(KINDS)}")
    sizes = _sizes(session.repo)
    rows = sorted(KINDS[by](session, sizes), key=lambda cost: (-cost.stored, cost.name))
    total = sum(sizes.values())
    return Usage(total, total - sum(sizes.get(oid, 0) for oid in reached(session.repo)), tuple(rows))


def unreachable(repo: Repository) -> int:
    """Return the bytes of the objects that no ref, reflog or index reaches."""
    sizes = _sizes(repo)
    return sum(sizes.values()) - sum(sizes.get(oid, 0) for oid in reached(repo))


def reached(repo: Repository, *, may_lack: bool = True) -> set[str]:
    """Return the objects that a ref, a reflog or an index reaches, those of other worktrees too.

    Unless the repository ``may_lack`` some, a missing one raises :class:`GitFailedError`.
    """
    return {*_reached(repo, EVERYTHING, seen=_SEEN if may_lack else ())}


def _sizes(repo: Repository) -> dict[str, int]:
    """Return id -> bytes on the disk of all objects."""
    form = "--batch-check=%(objectname) %(objectsize:disk)"
    rows = split_lines(repo.git().run("cat-file", "--batch-all-objects", "--unordered", form).text)
    return {oid: int(size) for oid, size in map(str.split, rows)}


def _reached(
    repo: Repository,
    revisions: tuple[str, ...],
    hidden: Set[str] = frozenset(),
    seen: tuple[str, ...] = _SEEN,
) -> Iterator[str]:
    """Yield the objects that ``revisions`` reach and ``hidden`` does not."""
    stdin = "".join(f"^{oid}\n" for oid in sorted(hidden)).encode()
    done = repo.git().run("rev-list", "--objects", *seen, *revisions, "--stdin", stdin=stdin)
    return (row.partition(" ")[0] for row in split_lines(done.text))


def _placed(repo: Repository) -> Iterator[tuple[str, tuple[str, ...], list[_Placed], set[str]]]:
    """Yield the commits, oldest first: id, parents, the blobs that come with it, those that leave."""
    if repo.promised.is_partial:  # git would fetch the trees of one commit after the other
        repo.promised.obtain(repo.git().run("log", "--all", "--format=%T").text.split())
    args = ("--reverse", "--topo-order", "-m", "--root", "-r", "--raw", "--no-abbrev", "--no-renames")
    fields = repo.git().run("log", "--all", *args, "-z", "--format=%x01%H %P").text.split("\0")
    commit, parents = "", tuple[str, ...]()
    came, left = list[_Placed](), set[str]()
    words = iter(fields)
    for word in words:
        field = word.lstrip("\n")
        if field.startswith("\x01"):
            oid, *found = field[1:].split()
            if commit and oid != commit:
                yield commit, parents, came, left
                came, left = [], set()
            commit, parents = oid, tuple(found)
        elif field.startswith(":"):
            _, _, old, new, _ = field.split(" ")
            came.append(_Placed(commit, next(words), new))
            left.add(old)
    if commit:
        yield commit, parents, came, left


def _by_group(
    session: Session, sizes: Mapping[str, int], name_of: Callable[[str, str], str]
) -> Iterator[Cost]:
    """Yield the costs of groups of blobs; ``name_of`` names a group by store ("" outside) and path."""
    blobs = [item for _, _, came, _ in _placed(session.repo) for item in came if item.oid in sizes]
    stores = {
        path.partition(f"/{_SKELETON}/")[0]
        for path in (item.path for item in blobs)
        if f"/{_SKELETON}/" in path
    }
    groups: dict[str, set[str]] = defaultdict(set)
    for item in blobs:
        groups[name_of(_store(item.path, stores), item.path)].add(item.oid)
    owners: dict[str, int] = defaultdict(int)
    for oids in groups.values():
        for oid in oids:
            owners[oid] += 1
    for name, oids in groups.items():
        alone = sum(sizes[oid] for oid in oids if owners[oid] == 1)
        yield Cost(name, sum(sizes[oid] for oid in oids), alone)


def _store(path: str, stores: Set[str]) -> str:
    """Return the folder of the store that ``path`` is in; "" outside of ``.theta/``."""
    if not path.startswith(f"{STORES}/"):
        return ""
    parts = path.split("/")
    names = ("/".join(parts[:count]) for count in range(2, len(parts)))
    return next((name for name in names if name in stores), "/".join(parts[:2]))


def _by_checkpoint(session: Session, sizes: Mapping[str, int]) -> Iterator[Cost]:
    named = {f"{STORES}/{m.store}": path for path, m in session.head.manifests.items()}
    return _by_group(session, sizes, lambda store, _: _label(named, store) if store else OTHERS)


def _by_tensors(session: Session, sizes: Mapping[str, int]) -> Iterator[Cost]:
    named = {f"{STORES}/{m.store}": path for path, m in session.head.manifests.items()}

    def name_of(store: str, path: str) -> str:
        if not store:
            return OTHERS
        parts = path[len(store) + 1 :].split("/")[:-1]
        if not parts or parts[0].startswith("@"):
            return HEADERS
        return f"{_label(named, store)}#{'.'.join('*' if part.isdecimal() else part for part in parts)}"

    return _by_group(session, sizes, name_of)


def _label(named: Mapping[str, str], store: str) -> str:
    return named.get(store, f"{store.removeprefix(f'{STORES}/')} (not in HEAD)")


def _by_commit(session: Session, sizes: Mapping[str, int]) -> Iterator[Cost]:
    """Yield what each commit brought; of that, what no other commit has would become free."""
    first: dict[str, str] = {}
    again: set[str] = set()
    children: dict[str, list[set[str]]] = defaultdict(list)
    order: list[str] = []
    for commit, parents, came, left in _placed(session.repo):
        order.append(commit)
        for item in came:
            if item.oid in sizes and first.setdefault(item.oid, commit) != commit:
                again.add(item.oid)
        for parent in parents:  # what a merge leaves out may be of another parent
            children[parent].append(left if len(parents) == 1 else set())
    brought: dict[str, list[str]] = defaultdict(list)
    for oid, commit in first.items():
        brought[commit].append(oid)
    for commit in order:
        gone = [o for o in brought[commit] if o not in again and all(o in left for left in children[commit])]
        stored, freed = (sum(sizes[oid] for oid in oids) for oids in (brought[commit], gone))
        yield Cost(commit, stored, freed, session.repo.commit(commit).message.partition("\n")[0])


def _by_branch(session: Session, sizes: Mapping[str, int]) -> Iterator[Cost]:
    """Yield what each branch, tag and run reaches, and what it alone reaches."""
    refs = {name: oid for name, oid in session.repo.refs.all_resolved().items() if _is_shown(name)}
    for name, oid in refs.items():
        others = {other for ref, other in refs.items() if ref != name}
        alone = _reached(session.repo, (oid,), others) if oid not in others else ()
        stored = sum(sizes.get(one, 0) for one in set(_reached(session.repo, (oid,))))
        yield Cost(name, stored, sum(sizes.get(one, 0) for one in set(alone)))


def _is_shown(name: str) -> bool:
    return name.startswith(("refs/heads/", "refs/remotes/", "refs/tags/", "refs/theta/runs/", "refs/stash"))


KINDS: Final[Mapping[str, Callable[[Session, Mapping[str, int]], Iterator[Cost]]]] = {
    "checkpoint": _by_checkpoint,
    "tensors": _by_tensors,
    "commit": _by_commit,
    "branch": _by_branch,
}
"""The kinds of things whose costs are counted."""
