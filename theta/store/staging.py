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
from theta.git.index import read_entries
from theta.git.repository import Repository

REFS: Final = "refs/theta/clean/"


def _directory(repo: Repository) -> Path:
    return repo.shared / "staged"


def staged_packs(repo: Repository) -> list[Path]:
    """The packs that may still be removed."""
    found = []
    for note in _notes(repo):
        pack = repo.commondir / "objects" / "pack" / note.read_text().strip()
        if pack.exists() and pack.with_suffix(".idx").exists():
            found.append(pack)
    return found


def _notes(repo: Repository) -> list[Path]:
    directory = _directory(repo)
    return sorted(directory.iterdir()) if directory.is_dir() else []


def hold(repo: Repository, manifest: str, store_tree: str, pack: Path | None) -> None:
    """Keep what clean stored for the manifest with id ``manifest``."""
    repo.raw.references.create(REFS + manifest, pygit2.Oid(hex=store_tree), force=True)
    if pack is not None:
        _fs.make_dirs(_directory(repo))
        _fs.write_atomic(_directory(repo) / manifest, pack.name.encode() + b"\n")


def adopt(repo: Repository, manifests: set[str]) -> None:
    """Keep the packs of ``manifests`` for good: something names them now."""
    for note in _notes(repo):
        if note.name in manifests:
            _fs.remove(note)


def sweep(repo: Repository, current: str) -> None:
    """Remove what clean stored before and nothing names; ``current`` is the manifest of now."""
    if not (notes := _notes(repo)) and not _refs(repo):
        return
    named = {current} | named_blobs(repo)
    for note in notes:
        if note.name not in named:
            pack = repo.commondir / "objects" / "pack" / note.read_text().strip()
            _fs.remove(pack.with_suffix(".idx"))
            _fs.remove(pack)
            _fs.remove(note)
        elif note.name != current:
            _fs.remove(note)
    for manifest in _refs(repo):
        if manifest not in named:
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
