"""Resolving checkpoints in conflict, whether git or theta left the conflict.

The versions are read from the index: stage 1 is the common ancestor, 2 ours, 3 theirs.  So a merge, a
rebase, a cherry-pick, a revert and a popped stash are treated alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from theta import _fs
from theta.errors import NotFoundError, WouldOverwriteError
from theta.git import in_progress
from theta.git.backends.index_entries import Staged
from theta.git.commit_graph import merge_bases
from theta.git.object_values import MODE_BLOB
from theta.merging.states import Conflict, Settled, three_way
from theta.porcelain.merge import joining, made_texts, recording
from theta.porcelain.merge.joining import FILE, How, Merged, all_manifests, merge_checkpoints
from theta.porcelain.merge.versions import Stages, Three, Versions, read_text
from theta.porcelain.workspace import closures, worktree
from theta.porcelain.workspace.checkpoints import Checkpoint
from theta.porcelain.workspace.exchange import Exchange
from theta.porcelain.workspace.session import Session
from theta.porcelain.workspace.worktree import State
from theta.progress import Progress
from theta.units import as_counted

if TYPE_CHECKING:
    from theta.git.backends.protocols import EditedIndex
    from theta.store.odb.packs import PackWriter


@dataclass
class Open:
    """The checkpoints of the index that may need a decision."""

    entries: Mapping[str, Mapping[int, Checkpoint]]

    @property
    def paths(self) -> dict[str, Stages]:
        """Path -> its stages."""
        return {path: {n: entry.oid for n, entry in stages.items()} for path, stages in self.entries.items()}

    def mode(self, path: str) -> int:
        """Return the file mode of the result: that of the side that changed it."""
        stages = self.entries.get(path, {})
        if 0 in stages:
            return stages[0].mode
        base, ours, theirs = (stages[n].mode if n in stages else None for n in (1, 2, 3))
        return (theirs if ours in (None, base) else ours) or ours or MODE_BLOB


def open_checkpoints(session: Session, *, merged_too: bool = False) -> Open:
    """Return the checkpoints in conflict; with ``merged_too`` all checkpoints of the index."""
    found = session.index.stages if merged_too else session.index.conflicts
    whole = {
        path: stages
        for path, stages in found.items()
        if 0 in stages or all_manifests(session, {n: entry.oid for n, entry in stages.items()})
    }
    return Open(whole)


def conflicts(session: Session) -> dict[str, list[Conflict]]:
    """Return path -> tensors in conflict for each checkpoint in conflict; reads no values."""
    opened = open_checkpoints(session)
    if not opened.entries:
        return {}
    versions = _versions(session)
    found: dict[str, list[Conflict]] = {}
    for path, stages in opened.paths.items():
        base, ours, theirs = versions.of(stages)
        if ours is None or theirs is None:
            found[path] = [Conflict(FILE, None, None, None)]
        else:
            states = three_way(base, ours, theirs, model=versions.model(path))
            torn = (state for state in states if not isinstance(state, Settled))
            found[path] = sorted(torn, key=lambda state: as_counted(state.name))
    return found


def _versions(session: Session, base: str | None = None) -> Versions:
    found = _of_operation(session, base)
    found.merged_text = partial(staged_text, session)
    return found


def staged_text(session: Session, path: str) -> bytes | None:
    """Return what is staged at ``path``, unless it is in conflict; or None."""
    found = (entry for entry in session.repo.entries() if entry.path == path and not entry.stage)
    return next((read_text(session, entry.oid, path) for entry in found), None)


def _of_operation(session: Session, base: str | None) -> Versions:
    now = in_progress.current(session.repo)
    if base:
        return Versions(session, base, now.ours, now.theirs, chosen=True)
    several = now.name == "merge" and now.ours and now.theirs
    crossing = merge_bases(session.repo, now.ours or "", now.theirs or "") if several else []
    return Versions(session, now.base, now.ours, now.theirs, crossing=crossing)


def resolve(
    session: Session,
    how: How,
    only: Iterable[str] | None = None,
    base: str | None = None,
    *,
    at_once: bool = False,
) -> Merged:
    """Settle the checkpoints in conflict, or those at the paths ``only``, and stage the results.

    ``base`` replaces the common ancestor.  ``at_once``: git stopped just now.
    Raises :class:`WouldOverwriteError` if a file in the worktree is none of the sides: the user edited it.
    """
    opened = open_checkpoints(session)
    if only is not None:
        wanted = set(only)
        opened = Open({path: stages for path, stages in opened.entries.items() if path in wanted})
    versions = _versions(session, base)
    if only is None:
        opened = Open({**opened.entries, **_with_tokens(session, versions, how)})
    for path, stages in opened.paths.items():
        _refuse_own_file(session, path, stages)
    with Exchange(session) as files:
        return settle(session, versions, opened, how, files, at_once=at_once)


def _with_tokens(session: Session, versions: Versions, how: How) -> dict[str, Mapping[int, Checkpoint]]:
    """Return the checkpoints that git merged just now, and whose rows are of other tokens on the sides."""
    found: dict[str, Mapping[int, Checkpoint]] = {}
    for path, stages in session.index.stages.items() if versions.is_known else ():
        if 0 not in stages or how.at(path).options.by_token is None:
            continue
        if versions.vocabulary(path) is not None and made_texts.is_gits(session, path, stages[0].oid):
            found[path] = stages
    needing = joining.needing_tokens(session, versions, Open(found).paths, how) if found else ()
    return {path: stages for path, stages in found.items() if path in needing}


def _refuse_own_file(session: Session, path: str, stages: Stages) -> None:
    for oid in stages.values():
        if worktree.examine(session, path, oid).state is not State.MODIFIED:
            return
    word = session.word(path)
    raise WouldOverwriteError(
        f"{session.place(path)} in the worktree is neither side of the conflict",
        hint=f"'theta add {word}' takes it as the result, 'theta restore --ours {word}' drops it",
    )


def settle(
    session: Session, versions: Versions, opened: Open, how: How, files: Exchange, *, at_once: bool = True
) -> Merged:
    """Merge the ``opened`` checkpoints, stage the results and write the files, without committing.

    A checkpoint that stays in conflict keeps its stages, and the worktree gets our version.
    ``files`` has the old files of the worktree open.  ``at_once``: git merged just now, and the user could
    not settle anything yet.  Raises :class:`WouldOverwriteError` for a text that the user edited.
    """
    with closures.following(session) as change:
        pack = change.pack
        merged = merge_checkpoints(session, pack, versions, opened.paths, how, files)
        staged = {path: pack.blob(manifest.data, text=True) for path, manifest in merged.resolved.items()}
        texts = made_texts.to_write(session, merged.texts, at_once=at_once)
        known = recording.asked(session)
        torn = made_texts.to_open(session, merged.open_texts, known, at_once=at_once)
        oids = {path: pack.blob(text.data, text=True) for path, text in texts.items()}
        stages = {path: _blobs(pack, text.versions) for path, text in torn.items()}
        change.store()
        files.sync()
        files.release()
        recording.note(session, merged, how, versions.chosen_base)
        _stage(session, change.index, versions, opened, merged, staged)
        for path, text in texts.items():
            change.index.put(Staged(path, oids[path], text.mode))
        for path in torn:
            change.index.put_conflict(path, *stages[path])
    recording.tell(session)
    _write(session, opened, merged, staged, how.progress, files)
    torn_texts = {path: made_texts.MadeText(made.data) for path, made in torn.items()}
    for path, text in {**texts, **torn_texts}.items():
        text.write(session, path)
    return merged


def _blobs(pack: PackWriter, versions: Iterable[bytes | None]) -> list[str | None]:
    return [None if data is None else pack.blob(data, text=True) for data in versions]


def _stage(
    session: Session,
    edit: EditedIndex,
    versions: Versions,
    opened: Open,
    merged: Merged,
    staged: Mapping[str, str],
) -> None:
    for path, oid in staged.items():
        edit.put(Staged(path, oid, opened.mode(path)))
    for path in merged.removed:
        edit.drop_conflict(path)
        edit.remove(path)
    for path in merged.conflicts:
        if 0 in opened.entries[path]:
            edit.put_conflict(path, *_sides(session, versions.of(opened.paths[path])))


def _sides(session: Session, found: Three) -> list[str | None]:
    return [session.repo.write_blob(side.data) if side is not None else None for side in found]


def _write(
    session: Session,
    opened: Open,
    merged: Merged,
    staged: Mapping[str, str],
    progress: Progress | None,
    files: Exchange,
) -> None:
    wanted = [(path, oid, opened.mode(path)) for path, oid in staged.items()]
    for path in merged.conflicts:
        ours = opened.paths[path].get(2)
        if ours and worktree.peek(session.repo.worktree / path) is not None:
            wanted.append((path, ours, opened.mode(path)))
    worktree.put_back(session, wanted, progress, files)
    for path in merged.removed:
        _fs.remove(_fs.safe_target(session.repo.worktree, path))


def tensors(session: Session) -> set[str]:
    """Return the names of all tensors of the checkpoints in conflict."""
    stages = (oid for stages in open_checkpoints(session).paths.values() for oid in stages.values())
    found = (session.manifest_or_none(oid) for oid in stages)
    return {line.name for manifest in found if manifest is not None for line in manifest.lines}


def check_paths(session: Session, paths: Sequence[str]) -> None:
    """Raise :class:`NotFoundError` for a path (from the current directory) that git does not know."""
    git = session.repo.git().in_directory(session.cwd)
    for path in paths:
        if git.run("ls-files", "--error-unmatch", "--", path, check=False).code:
            raise NotFoundError(f"{path} is not a file that git knows", hint="'theta status' lists conflicts")


def is_stopped(session: Session) -> bool:
    """Return whether anything is in conflict, files below ``.theta/`` included."""
    return session.repo.has_unmerged()


def unmerged(session: Session, pathspecs: list[str] | None = None) -> list[str]:
    """Return all paths in conflict, or those that ``pathspecs`` name from the current directory."""
    found = session.repo.unmerged()
    if found and pathspecs:
        git = session.repo.git().in_directory(session.cwd)
        rows = git.lines("ls-files", "-u", "-z", "--full-name", "--", *pathspecs)
        return sorted(found.keys() & {row.partition("\t")[2] for row in rows})
    return sorted(found)
