"""Packs of git's clean filter that nothing names yet.

Git runs clean for ``status`` as well as for ``add`` and cannot say which.  So each run keeps
its objects in a pack of their own, held by the refs ``refs/theta/clean/<manifest>``, of the trees,
and ``refs/theta/clean/<manifest>-text``, of the manifest itself (``git gc --prune=now`` must not lose
them before git writes its index), and the next run removes what neither an index nor a stash
names.  Other writers never rely on an object that only such a pack holds.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Final

from theta import _fs, _notes
from theta.errors import DiskError
from theta.git import processes
from theta.git.object_format import is_id
from theta.git.object_values import Commit
from theta.git.quoting import split_lines
from theta.git.repository import STORES, Repository
from theta.store.format.manifest import MAX_BYTES, looks_like_manifest
from theta.store.odb import pack_keeps
from theta.store.odb.held_notes import ADOPTED, Note, all_notes, directory_of, read_note

REFS: Final = "refs/theta/clean/"
_TEXT: Final = "-text"
"""The end of the name of a ref to the manifest; earlier versions wrote none."""


def hold(repo: Repository, manifest: str, store_tree: str, pack: Path | None) -> None:
    """Keep what clean stored for the manifest with id ``manifest``.

    The note names the pack, the process that asked for it, and the commits of that time.  The note of an
    earlier clean of the manifest keeps its commits, and its pack if nothing was left to store.  The note is
    there before the refs, so that a sweep of another process, which sees a ref, knows whose it is.
    """
    _notes.directory(directory_of(repo))
    found = repo.refs.all_resolved().items()
    tips = sorted({oid for name, oid in found if not name.startswith("refs/theta/")})
    known = read_note(repo, manifest)
    if known is not None and not known.adopted:
        pack, tips = pack or known.pack, list(known.tips)
    Note(directory_of(repo) / manifest, pack, processes.owner(), tuple(tips)).write()
    repo.refs.put({REFS + manifest: store_tree, REFS + manifest + _TEXT: manifest})


def is_held(repo: Repository, manifest: str) -> bool:
    """Return whether a ref holds what clean stored for the manifest with id ``manifest``."""
    return REFS + manifest in repo.refs


def renew(repo: Repository, manifest: str) -> bool:
    """Keep what an earlier git command's clean stored for ``manifest`` until this one has written its index.

    Return whether it is held.
    """
    note = read_note(repo, manifest)
    if note is None or note.adopted:
        return False
    replace(note, owner=processes.owner()).write()
    if not is_held(repo, manifest) or not repo.has(manifest):
        return False
    repo.refs.put({REFS + manifest + _TEXT: manifest})
    return True


def adopt(repo: Repository, manifests: set[str]) -> None:
    """Keep the packs of ``manifests`` for good: ``.theta/`` of an index names what they hold."""
    for note in all_notes(repo):
        if note.manifest in manifests and not note.adopted:
            replace(note, owner=ADOPTED).write()


def sweep(repo: Repository) -> None:
    """Remove what clean stored for earlier git commands and nothing names.

    A git command writes its index (or its stash) after all its files are clean, and may start other
    gits for that.  So the pack of a note stays while the outermost git named in the note is running.
    """
    pack_keeps.remove_stale(repo.commondir / "objects" / "pack")
    refs, notes = _refs(repo), all_notes(repo)  # in this order: hold writes the note first
    if not notes and not refs:
        return
    named = named_blobs(repo)
    kept = set(named)
    for note in notes:
        alive = processes.is_alive(note.owner, _notes.written(note.place))
        # The note is another one when another git, which runs, had the file cleaned meanwhile.
        if alive or _is_needed(repo, note, named) or read_note(repo, note.manifest) != note:
            kept.add(note.manifest)
            continue
        if note.pack is not None and not note.adopted:
            _fs.remove(note.pack.with_suffix(".idx"))
            _fs.remove(note.pack)
        _notes.drop(note.place)
    for name in refs:
        if name.removesuffix(_TEXT) not in kept:
            repo.refs.remove(REFS + name)


def _is_needed(repo: Repository, note: Note, named: set[str]) -> bool:
    """Return whether an index, stash or commit needs the pack of ``note``, or, once adopted, the ref."""
    if note.manifest in named:
        return True
    new = _objects_since(repo, list(note.tips))
    inside = note.ids()
    if note.adopted or note.pack is None:
        # A commit made without hooks, or of a stash, names the manifest and lacks its trees.  A note has no
        # pack when an earlier clean had stored everything: git reads a file as new as its index twice.
        return note.manifest in new and not _is_stored(repo, note)
    if inside & (named | new.keys()):
        return True
    texts = named | {oid for oid, path in new.items() if path and not path.startswith(STORES + "/")}
    return any(tree in inside for oid in texts for tree in _trees_named(repo, oid))


def _objects_since(repo: Repository, tips: list[str]) -> dict[str, str]:
    """Return id -> path of the objects that commits and reflogs reach now and ``tips`` did not."""
    hidden = "".join(f"^{tip}\n" for tip in tips if tip and repo.has(tip)).encode()
    command = ["rev-list", "--objects", "--missing=allow-any", "--ignore-missing", "--exclude=refs/theta/*"]
    command += ["--all", "--reflog", "--stdin"]
    rows = split_lines(repo.git().run(*command, stdin=hidden, check=False).text)
    return {oid: path for oid, _, path in (row.partition(" ") for row in rows)}


def _is_stored(repo: Repository, note: Note) -> bool:
    """Return whether each commit since the note that has the manifest also has, by itself, all of its trees.

    Those of another branch do not count: it may be deleted.
    """
    trees = _trees_named(repo, note.manifest)
    listed = [_ids_in(repo, commit) for commit in _commits_with(repo, note)]
    having = [ids for ids in listed if note.manifest in ids]
    return bool(having) and all(trees <= ids for ids in having)


def _commits_with(repo: Repository, note: Note) -> list[str]:
    """Return the commits since the note that brought the manifest in, or dropped it."""
    command = ["log", "--format=%H", "-m", "--root", "--no-renames", f"--find-object={note.manifest}"]
    command += ["--exclude=refs/theta/*", "--all", "--reflog"]
    command += [f"^{tip}" for tip in note.tips if tip and repo.has(tip)]
    found = repo.git().run(*command, check=False)
    return [] if found.code else list(dict.fromkeys(split_lines(found.text)))


def _ids_in(repo: Repository, commit: str) -> set[str]:
    """Return the ids of all files and folders of ``commit``."""
    rows = repo.git().run("ls-tree", "-r", "-t", "--format=%(objectname)", commit, check=False)
    return set(split_lines(rows.text))


def _trees_named(repo: Repository, oid: str) -> set[str]:
    """Return the trees that blob ``oid`` names, if it is a manifest."""
    blob = repo.blob_here(oid)
    if blob is None or blob.size > MAX_BYTES or not looks_like_manifest(blob.data):
        return set()
    words = blob.data.decode("utf-8", "replace").split()
    return {word for word in words if is_id(word)}


def _refs(repo: Repository) -> list[str]:
    return [name.removeprefix(REFS) for name in repo.refs if name.startswith(REFS)]


def named_blobs(repo: Repository) -> set[str]:
    """Return the blobs that a stash or the index of any worktree names, ``.theta/`` included."""
    named: set[str] = set()
    for gitdir in [repo.commondir, *repo.commondir.glob("worktrees/*")]:
        for index in (gitdir / "index", *gitdir.glob("next-index-*.lock"), *gitdir.glob("index.stash.*")):
            with contextlib.suppress(DiskError):
                named |= {entry.oid for entry in repo.read_index(index)}
    for commit in _stashes(repo):
        named |= {entry.id for _, entry in repo.walk_blobs(repo.read_tree(commit.tree))}
    return named


def _stashes(repo: Repository) -> list[Commit]:
    found: list[Commit] = []
    if (repo.commondir / "refs/stash").exists() or "refs/stash" in repo.refs:
        for oid in repo.refs.log("refs/stash"):
            commit = repo.commit_here(oid)
            if commit is not None:
                found += [commit, *map(repo.commit, commit.parents[1:])]
    return found
