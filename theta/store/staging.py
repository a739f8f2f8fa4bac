"""What git's clean filter stored and nothing names yet.

Git runs clean for ``status`` as well as for ``add`` and cannot say which.  So each run keeps
its objects in a pack of their own, held by a ref ``refs/theta/clean/<manifest>`` (``git gc
--prune=now`` must not lose them), and the next run removes what neither an index nor a stash
names.  Other writers never rely on an object that only such a pack holds.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

import pygit2

from theta import _fs
from theta.errors import DiskError
from theta.git import processes
from theta.git.index import read_entries
from theta.git.repository import STORES, Repository
from theta.store.manifest import MAX_BYTES, looks_like_manifest
from theta.store.packs import Pack

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
    """Keep what clean stored for the manifest with id ``manifest``.

    The note tells the pack, whose command it was, and the commits that there were.
    """
    repo.raw.references.create(REFS + manifest, pygit2.Oid(hex=store_tree), force=True)
    _fs.make_dirs(_directory(repo))
    tips = sorted({str(repo.raw.references[name].resolve().target) for name in repo.raw.references})
    body = "\n".join([pack.name if pack else "", processes.owner(), *tips]) + "\n"
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
    named = named_blobs(repo)
    kept = set(named)
    for note in notes:
        if processes.is_alive(note.read_text().split("\n")[1]) or _is_needed(repo, note, named):
            kept.add(note.name)
            continue
        if (pack := _pack_of(repo, note)) is not None:
            _fs.remove(pack.with_suffix(".idx"))
            _fs.remove(pack)
        _fs.remove(note)
    for manifest in _refs(repo):
        if manifest not in kept:
            repo.raw.references.delete(REFS + manifest)


def _is_needed(repo: Repository, note: Path, named: set[str]) -> bool:
    """Whether an index, a stash or a commit needs an object of the pack of ``note``."""
    pack = _pack_of(repo, note)
    if pack is None or not pack.with_suffix(".idx").exists():
        return note.name in named
    new = _objects_since(repo, note.read_text().split("\n")[2:])
    inside = set(Pack(pack.with_suffix(".idx")).ids())
    if inside & (named | new.keys()):
        return True
    texts = named | {oid for oid, path in new.items() if path and not path.startswith(STORES + "/")}
    return any(tree in inside for oid in texts for tree in _trees_named(repo, oid))


def _objects_since(repo: Repository, tips: list[str]) -> dict[str, str]:
    """Object id -> path, of all that commits and reflogs reach now and ``tips`` did not."""
    hidden = "".join(f"^{tip}\n" for tip in tips if tip and repo.has(tip)).encode()
    command = ("rev-list", "--objects", "--ignore-missing", "--all", "--reflog", "--stdin")
    rows = repo.git().run(*command, stdin=hidden, check=False).text.splitlines()
    return {oid: path for oid, _, path in (row.partition(" ") for row in rows)}


def _trees_named(repo: Repository, oid: str) -> set[str]:
    """The trees that blob ``oid`` names, if it is a manifest."""
    blob = repo.raw.get(oid)
    if not isinstance(blob, pygit2.Blob) or blob.size > MAX_BYTES or not looks_like_manifest(blob.data):
        return set()
    words = blob.data.decode("utf-8", "replace").split()
    return {word for word in words if len(word) == 40}


def _refs(repo: Repository) -> list[str]:
    return [name.removeprefix(REFS) for name in repo.raw.references if name.startswith(REFS)]


def named_blobs(repo: Repository) -> set[str]:
    """The blobs that the index of any worktree, or a stash, names; those of ``.theta/`` too."""
    named: set[str] = set()
    for gitdir in [repo.commondir, *repo.commondir.glob("worktrees/*")]:
        for index in (gitdir / "index", *gitdir.glob("next-index-*.lock"), *gitdir.glob("index.stash.*")):
            with contextlib.suppress(DiskError):
                named |= {entry.oid for entry in read_entries(index)}
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
