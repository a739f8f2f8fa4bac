"""Index files that git itself reads and writes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from theta.errors import DiskError
from theta.git.backends.index_copy import IndexCopy, signature
from theta.git.backends.index_entries import Entry, Staged
from theta.git.run import Git, GitFailedError

_SKIPPED: Final = "S"


class GitIndexes:
    """Index files."""

    def __init__(self, git: Git) -> None:
        self._git = git
        self._known: dict[Path, tuple[object, list[Entry]]] = {}

    def _of(self, path: Path) -> Git:
        return replace(self._git, index_file=path)

    def entries(self, path: Path) -> list[Entry]:
        """Return all entries of the index file at ``path``; empty without a file."""
        seen = signature(path)
        if not seen:
            return []
        known = self._known.get(path)
        if known is None or known[0] != seen:
            known = self._known[path] = seen, list(self._listed(path))
        return known[1]

    def outside(self, path: Path, directory: str) -> list[Entry]:
        """Return the entries that are not below ``directory``, where many may be."""
        return [entry for entry in self.entries(path) if not entry.path.startswith(directory + "/")]

    def _listed(self, path: Path) -> Iterator[Entry]:
        try:
            rows = self._of(path).lines("ls-files", "-s", "-t", "-z", "--full-name")
        except GitFailedError as error:
            raise DiskError(f"cannot read the index: {error}") from error
        for row in rows:
            head, _, name = row.partition("\t")
            tag, mode, oid, stage = head.split(" ")
            yield Entry(name, oid, int(mode, 8), int(stage), tag == _SKIPPED)

    def listing(self, path: Path) -> bytes:
        """Return all entries as ``git ls-files -s -z`` prints them."""
        return _fields([f"{one.mode:06o} {one.oid} {one.stage}\t{one.path}" for one in self.entries(path)])

    def has_conflicts(self, path: Path) -> bool:
        """Return whether entries are in conflict."""
        return any(entry.stage for entry in self.entries(path))

    def fresh_paths(self, path: Path, seen: Mapping[str, os.stat_result]) -> set[str]:
        """Return those paths of ``seen`` that git takes for unchanged."""
        if not seen or not path.exists():
            return set()
        found = self._of(path).changes(
            "diff-files", "--name-only", "-z", "--", *(f":(top,literal){one}" for one in seen)
        )
        return set(seen) - set(found)

    def write_tree(self, path: Path) -> str | None:
        """Write the tree of the index; None when something is in conflict."""
        return self._of(path).run("write-tree", check=False).text.strip() or None

    def edit(self, path: Path, scratch: Path, *, patient: bool = True) -> GitIndexEdit:
        """Return an atomic change of the index file at ``path``."""
        return GitIndexEdit(self, self._git, path, scratch, patient=patient)


class GitIndexEdit(IndexCopy):
    """An atomic change of an index file."""

    def __init__(
        self, indexes: GitIndexes, git: Git, path: Path, scratch: Path, *, patient: bool = True
    ) -> None:
        self._indexes, self._unbound = indexes, git
        super().__init__(path, scratch, patient=patient)

    def _load(self) -> None:
        self._git = replace(self._unbound, index_file=self._copy)
        self._before = _by_path(self._indexes.entries(self._path))  # as the copy, while it is locked
        self._now = {path: dict(stages) for path, stages in self._before.items()}
        self._seen: set[str] = set()

    def entries(self) -> Iterator[Entry]:
        """Yield all entries in git's order."""
        for path in sorted(self._now, key=os.fsencode):
            yield from (self._now[path][stage] for stage in sorted(self._now[path]))

    def put(self, item: Staged) -> None:
        """Add or replace the stage-0 entry of ``item.path``, dropping its conflict stages."""
        self._now[item.path] = {0: Entry(item.path, item.oid, item.mode, 0, item.skip)}
        self._seen.discard(item.path)
        if item.stat is not None:
            self._seen.add(item.path)

    def put_conflict(self, path: str, base: str | None, ours: str | None, theirs: str | None) -> None:
        """Put ``path`` into conflict with these blob ids as stages 1 to 3, None for a missing file."""
        sides = enumerate((base, ours, theirs), 1)
        mode = Staged(path, "").mode
        self._now[path] = {stage: Entry(path, oid, mode, stage, False) for stage, oid in sides if oid}

    def drop_conflict(self, path: str) -> None:
        """Drop the stages 1 to 3 of ``path``, if any."""
        self._keep(path, {0})

    def remove(self, path: str) -> None:
        """Remove the stage-0 entry of ``path``."""
        self._keep(path, {1, 2, 3})

    def _keep(self, path: str, stages: set[int]) -> None:
        left = {stage: entry for stage, entry in self._now.pop(path, {}).items() if stage in stages}
        if left:
            self._now[path] = left

    def _is_changed(self) -> bool:
        return bool(self._changed())

    def _changed(self) -> list[str]:
        paths = self._before.keys() | self._now.keys()
        return sorted({path for path in paths if self._before.get(path) != self._now.get(path)} | self._seen)

    def _write(self) -> None:
        try:
            self._tell(self._changed())
        except GitFailedError as error:
            raise DiskError(f"cannot write the index: {error}") from error

    def _tell(self, changed: list[str]) -> None:
        """Write the entries of ``changed`` into the copy, by git.

        An entry that is written anew has no stat data; of one that has the size of a manifest git would
        not look at the content.
        """
        rows: list[str] = []
        for path in changed:
            stages = self._now.get(path, {})
            some = next(iter((stages or self._before[path]).values()))
            rows.append(f"0 {'0' * len(some.oid)}\t{path}")
            rows += [f"{entry.mode:o} {entry.oid} {stage}\t{path}" for stage, entry in sorted(stages.items())]
        self._git.run("update-index", "-z", "--index-info", stdin=_fields(rows))
        skipped = [path for path in changed if self._is_skipped(path)]
        if skipped:
            self._git.run("update-index", "--skip-worktree", "-z", "--stdin", stdin=_fields(skipped))
        if self._seen:  # git reads them, through the filter, and takes down their stat data
            named = ("--pathspec-from-file=-", "--pathspec-file-nul")
            seen = _fields(sorted(self._seen))
            self._git.run(
                "--literal-pathspecs", "add", "--sparse", "--refresh", *named, stdin=seen, check=False
            )

    def _is_skipped(self, path: str) -> bool:
        entry = self._now.get(path, {}).get(0)
        return entry is not None and entry.skip


def _by_path(entries: list[Entry]) -> dict[str, dict[int, Entry]]:
    found: dict[str, dict[int, Entry]] = {}
    for entry in entries:
        found.setdefault(entry.path, {})[entry.stage] = entry
    return found


def _fields(rows: list[str]) -> bytes:
    return "".join(f"{row}\0" for row in rows).encode("utf-8", "surrogateescape")
