"""Partial clones: promised objects are fetched when they are read, together with those read next.

A caller announces what it will read (:meth:`Promised.expect`), which costs nothing.  The first missing
object that is read fetches all of them in one request, where git would fetch one after the other.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Final, Protocol

from theta import progress
from theta.errors import NotHereYetError
from theta.git.object_format import ID
from theta.git.object_values import MODE_TREE
from theta.git.run import GitFailedError
from theta.units import human

if TYPE_CHECKING:
    from pathlib import Path

    from theta.git.backends.protocols import Config
    from theta.git.object_values import Tree
    from theta.git.run import Git

_KEY: Final = re.compile(r"remote\.(.+)\.promisor")
_UNKNOWN: Final = re.compile(rf"not our ref ({ID})")
_MOST_UNKNOWN: Final = 8
"""The largest number of requests to a remote that does not have some of the objects."""


class Store(Protocol):
    """The parts of a repository that are used here."""

    commondir: Path

    @property
    def config(self) -> Config:
        """Git's configuration."""
        ...

    def has(self, oid: str) -> bool:
        """Return whether object ``oid`` is in this repository."""
        ...

    def tree_here(self, oid: str) -> Tree | None:
        """Return tree ``oid`` without fetching it; None when it is not in this repository."""
        ...

    def git(self) -> Git:
        """Return a runner of git."""
        ...


class Promised:
    """The objects that remotes promised to this clone; none in a full clone."""

    def __init__(self, repo: Store) -> None:
        self._repo = repo
        self._lock = threading.RLock()
        self._objects: set[str] = set()
        self._trees: dict[str, int] = {}
        self._failed: dict[str, str] = {}
        self._unreachable: dict[str, str] = {}
        self._complete: set[str] = set()
        self._closed = False

    @cached_property
    def remotes(self) -> tuple[str, ...]:
        """The remotes that promised objects."""
        config = self._repo.config
        found = map(_KEY.fullmatch, config)
        names = [match[1] for match in found if match and config.flag(match[0])]
        old = config.get("extensions.partialclone")
        return tuple(dict.fromkeys([*names, *([old] if old else [])]))

    @cached_property
    def is_partial(self) -> bool:
        """Whether this is a partial clone (``git clone --filter``)."""
        packs = self._repo.commondir / "objects" / "pack"
        return any(packs.glob("*.promisor")) or bool(self.remotes)

    def expect(self, oids: Iterable[str]) -> None:
        """Announce that the objects ``oids`` may be read."""
        if self.is_partial:
            with self._lock:
                self._objects.update(oids)

    def expect_files(self, trees: Mapping[str, int]) -> None:
        """Announce that the files of ``trees`` (tree id -> decoded bytes of its files) may be read."""
        if self.is_partial:
            with self._lock:
                self._trees.update(trees)

    @contextlib.contextmanager
    def closed(self) -> Iterator[None]:
        """Fetch nothing in this block: reading a missing object raises :class:`NotHereYetError`."""
        before, self._closed = self._closed, True
        try:
            yield
        finally:
            self._closed = before

    def bring(self, oid: str) -> bool:
        """Fetch object ``oid`` and all announced objects; return False in a full clone.

        Raises :class:`NotHereYetError` if no remote sends it.
        """
        if not self.is_partial:
            return False
        with self._lock:
            if not self._repo.has(oid):
                self._bring(oid)
        return True

    def obtain(self, oids: Iterable[str]) -> None:
        """Fetch the missing ones of ``oids``; raises as :meth:`bring`."""
        missing = [oid for oid in oids if self.is_partial and not self._repo.has(oid)]
        self.expect(missing)
        for oid in missing:
            self.bring(oid)

    def bring_below(self, root: str) -> None:
        """Fetch the missing trees below tree ``root``."""
        if not self._leaves_out_trees or root in self._complete:
            return
        missing: list[str] = []
        todo = [root]
        while todo:
            found = self._repo.tree_here(todo.pop())
            for entry in found if found is not None else ():
                if entry.mode == MODE_TREE:
                    (todo if self._repo.has(entry.id) else missing).append(entry.id)
        self.obtain(missing)
        self._complete.add(root)

    @cached_property
    def _leaves_out_trees(self) -> bool:
        config = self._repo.config
        keys = (f"remote.{remote}.partialclonefilter" for remote in self.remotes)
        return any("tree:" in (config.get(key) or "") for key in keys)

    def _bring(self, oid: str) -> None:
        if oid in self._failed:
            raise NotHereYetError(self._failed[oid], hint=_HINT)
        if self._closed:
            raise NotHereYetError(f"object {oid} is not here yet")
        expected, trees = self._objects | {oid}, self._trees
        self._objects, self._trees = set(), {}
        self._fetch(self._missing({*expected, *trees} if self._lacks(trees) else ()), 0)
        files = {tree: self._missing(self._files(tree)) for tree in trees}
        size = sum(trees[tree] for tree, missing in files.items() if missing)
        self._fetch(self._missing(expected).union(*files.values()), size)
        if not self._repo.has(oid):
            raise NotHereYetError(self._failed.get(oid, f"object {oid} is not here yet"), hint=_HINT)

    def _lacks(self, oids: Iterable[str]) -> bool:
        return not all(map(self._repo.has, oids))

    def _missing(self, oids: Iterable[str]) -> set[str]:
        return {oid for oid in oids if oid not in self._failed and not self._repo.has(oid)}

    def _files(self, tree: str) -> Iterator[str]:
        found = self._repo.tree_here(tree)
        return (entry.id for entry in found) if found is not None else iter(())

    def _fetch(self, wanted: set[str], size: int) -> None:
        """Fetch ``wanted`` from the promisor remotes, each as far as it has them."""
        said = "no remote is configured to send them"
        for remote in self.remotes:
            said = self._fetch_from(remote, wanted) if wanted else said
            wanted = self._missing(wanted)
        if wanted:
            of = f" (of {human(size)})" if size else ""
            message = f"{len(wanted)} objects{of} are not here yet: {said}"
            self._failed |= dict.fromkeys(wanted, message)

    def _fetch_from(self, remote: str, wanted: set[str]) -> str:
        """Fetch ``wanted`` in one request, repeated without objects the remote does not have.

        Returns the reason if objects are still missing.
        """
        left = set(wanted)
        for _ in range(_MOST_UNKNOWN):
            if remote in self._unreachable or not left:
                break
            try:
                self._request(remote, left)
                break
            except GitFailedError as error:
                unknown = set(_UNKNOWN.findall(error.stderr)) & left
                left -= unknown
                if not unknown:
                    self._unreachable[remote] = f"{remote}: {_reason(error)}"
        return self._unreachable.get(remote, f"{remote} does not have them")

    def _request(self, remote: str, wanted: set[str]) -> None:
        command = ["-c", "fetch.negotiationAlgorithm=noop", "fetch", remote, "--no-tags"]
        command += ["--no-write-fetch-head", "--recurse-submodules=no", "--filter=blob:none", "--stdin"]
        objects = "".join(f"{oid}\n" for oid in sorted(wanted)).encode()
        with progress.fetches() as shown:
            command += ["--progress"] if shown else []
            self._repo.git().run(*command, stdin=objects, shown=shown)


_HINT: Final = "repeat it when the remote can be reached"


def _reason(error: GitFailedError) -> str:
    """Return the line with git's reason, without the advice after it."""
    lines = (line.removeprefix("fatal: ") for line in error.stderr.splitlines() if line.startswith("fatal: "))
    return next(lines, str(error))
