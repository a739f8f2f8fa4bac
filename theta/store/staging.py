"""What git's clean filter stored and nothing names yet.

Git runs clean for ``status`` as well as for ``add`` and cannot say which.  So each run keeps
its objects in a pack of their own, held by a ref ``refs/theta/clean/<manifest>`` (``git gc
--prune=now`` must not lose them), and the next run removes what neither an index nor a stash
names.  Other writers never rely on an object that only such a pack holds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pygit2

from theta import _fs
from theta.git import processes
from theta.git.index import read_entries
from theta.git.repository import Repository

REFS: Final = "refs/theta/clean/"


def _directory(repo: Repository) -> Path:
    return repo.shared / "staged"


def staged_packs(repo: Repository) -> list[Path]:
    """The packs that may still be removed."""
    found = []
    for note in _notes(repo):
        pack = _pack_of(repo, note)
        if pack is not None and pack.exists() and pack.with_suffix(".idx").exists():
            found.append(pack)
    return found


def _pack_of(repo: Repository, note: Path) -> Path | None:
    name = note.read_text().partition("\n")[0]
    return repo.commondir / "objects" / "pack" / name if name else None


def _notes(repo: Repository) -> list[Path]:
    directory = _directory(repo)
    return sorted(directory.iterdir()) if directory.is_dir() else []


def hold(repo: Repository, manifest: str, store_tree: str, pack: Path | None) -> None:
    """Keep what clean stored for the manifest with id ``manifest``."""
    repo.raw.references.create(REFS + manifest, pygit2.Oid(hex=store_tree), force=True)
    _fs.make_dirs(_directory(repo))
    body = f"{pack.name if pack else ''}\n{processes.owner()}\n"
    _fs.write_atomic(_directory(repo) / manifest, body.encode())


def adopt(repo: Repository, manifests: set[str]) -> None:
    """Keep the packs of ``manifests`` for good: something names them now."""
    for note in _notes(repo):
        if note.name in manifests:
            _fs.remove(note)


def sweep(repo: Repository) -> None:
    """Remove what clean stored for earlier git commands and nothing names.

    A command writes its index (or its stash) after all its files are clean, and may run several
    gits for it: whatever the outermost git of a note still lives for is left alone.
    """
    if not (notes := _notes(repo)) and not _refs(repo):
        return
    at_work = {note.name for note in notes if processes.is_alive(note.read_text().split("\n")[1])}
    named = named_blobs(repo)
    for note in notes:
        if note.name in at_work:
            continue
        if note.name not in named and (pack := _pack_of(repo, note)) is not None:
            _fs.remove(pack.with_suffix(".idx"))
            _fs.remove(pack)
        _fs.remove(note)
    for manifest in _refs(repo):
        if manifest not in named | at_work:
            repo.raw.references.delete(REFS + manifest)


def _refs(repo: Repository) -> list[str]:
    return [name.removeprefix(REFS) for name in repo.raw.references if name.startswith(REFS)]


def named_blobs(repo: Repository) -> set[str]:
    """The blobs that the index of any worktree, a stash, or HEAD names outside ``.theta/``."""
    named: set[str] = set()
    for index in [repo.commondir / "index", *repo.commondir.glob("worktrees/*/index")]:
        named |= {entry.oid for entry in read_entries(index) if not entry.path.startswith(".theta/")}
    for commit in _stashes(repo):
        named |= {str(entry.id) for _, entry in repo.walk_blobs(commit.tree)}
    return named


def _stashes(repo: Repository) -> list[pygit2.Commit]:
    found: list[pygit2.Commit] = []
    if (repo.commondir / "refs/stash").exists() or "refs/stash" in repo.raw.references:
        for line in repo.raw.references["refs/stash"].log():
            commit = repo.raw.get(line.oid_new)
            if isinstance(commit, pygit2.Commit):
                found += [commit, *commit.parents[1:]]
    return found
