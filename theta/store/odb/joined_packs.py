"""Joining small packs, so that their number does not grow with that of the commits.

A commit is a pack, and an object is looked for in all packs.  Packs of similar size are joined
once there are eight of them, so a byte is copied a few times at most, and their number stays logarithmic.
Entries are copied as they stand: nothing is coded again.

The joined pack is durable before the others go, as ``git repack -d`` does it.  A reader that meanwhile misses
a pack looks for new ones, as git and libgit2 do.  A process that is killed leaves objects twice, or an index
without its pack, which the next command removes.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from theta import _fs, _notes
from theta._kernels import zlib_ng
from theta.errors import BusyError, DiskError, NoSpaceError
from theta.git.object_format import ObjectFormat
from theta.git.repository import Repository
from theta.store.odb.held_notes import staged_packs
from theta.store.odb.packs import PackEntry, PackWriter

_MANY: Final = 8
"""Packs of one size that are joined; a size is up to eight times that of the one below it."""
_LARGE: Final = 16 << 20
"""Bytes from which on a pack stays: its objects take longer to code than to be found among many packs."""
_PLAIN: Final = (frozenset({".pack", ".idx"}), frozenset({".pack", ".idx", ".rev"}))
"""The files of a pack that nobody marked: as kept, promised, cruft, or with a bitmap."""
_MULTI: Final = ("multi-pack-index", "multi-pack-index.d/*")
"""Indexes of git over several packs, which name the packs that they are of."""
_LAPSE: Final = 12 * 3600.0
"""Seconds after which git takes the lock of its gc for that of a dead one."""
_PUBLISHED: Final = 2.0
"""Seconds after which a pack that has its name has an index too."""
_TABLE: Final = 8 + 1024
"""The place of the ids in an index: after its head and its fan-out table."""
_WHOLE: Final = (1, 2, 3, 4)
"""The kinds of entries that need no other one."""


def join(repo: Repository) -> bool:
    """Join the small packs of ``repo`` if many have one size; return whether any were joined.

    Nothing is joined while another theta does so, or git's gc runs, or when the disk is full.
    """
    joined = False
    with contextlib.suppress(BusyError, DiskError, NoSpaceError, OSError):
        if any(map(_is_many, _sizes(repo).values())) and not _is_busy(repo):
            lock = _notes.lock(repo.shared / "joining", patience=0)
            try:
                while group := _group(repo):
                    joined = _join(repo, group) or joined
            finally:
                lock.release()
    return joined


def remove_orphans(repo: Repository, since: float, earliest: float | None = None) -> None:
    """Remove halves of packs that a process left which was killed, and which began ``since`` then.

    If that is not known, ``earliest`` is before any pack of it.
    A pack gets its index last, and loses it last.  So an index without a pack is never a new one, unless a
    copying tool brings both; a pack without an index is not one after a while.
    """
    for stem, suffixes in _stems(repo).items():
        if (suffixes <= {".idx", ".rev"} and _lost_pack(repo, stem, since)) or (
            suffixes <= {".pack", ".rev"} and _stays_half(repo, stem, since if earliest is None else earliest)
        ):
            for suffix in suffixes:
                _fs.remove(_directory(repo) / f"{stem}{suffix}")


def _lost_pack(repo: Repository, stem: str, since: float) -> bool:
    """Return whether files of a pack that were there before ``since`` have no pack.

    A folder is read in pieces: its list may have the index, but not the pack, of one that is new.
    """
    place = _directory(repo) / f"{stem}.pack"
    files = [place.with_suffix(suffix) for suffix in (".idx", ".rev")]
    try:
        changed = max(os.stat(file).st_ctime for file in files if file.exists())
    except (FileNotFoundError, ValueError):
        return False
    return changed < max(since, time.time() - _LAPSE) and not place.exists()


def _stays_half(repo: Repository, stem: str, since: float) -> bool:
    """Return whether a pack that was written ``since`` then gets no index."""
    place = _directory(repo) / f"{stem}.pack"
    try:
        info = os.stat(place)
        time.sleep(min(max(info.st_ctime + _PUBLISHED - time.time(), 0), _PUBLISHED))
        return info.st_mtime >= since - 2 and place.exists() and not place.with_suffix(".idx").exists()
    except FileNotFoundError:
        return False


def _sizes(repo: Repository) -> dict[int, list[Path]]:
    """Return size -> small packs that nothing marks, the oldest first."""
    found: dict[int, list[tuple[int, Path]]] = defaultdict(list)
    for stem, suffixes in _stems(repo).items():
        if suffixes in _PLAIN:
            path = _directory(repo) / f"{stem}.pack"
            info = os.stat(path)
            if info.st_size < _LARGE:
                found[info.st_size.bit_length() // 3].append((info.st_mtime_ns, path))
    return {size: [path for _, path in sorted(packs)] for size, packs in sorted(found.items())}


def _is_many(packs: Sequence[Path]) -> bool:
    return len(packs) >= _MANY


def _group(repo: Repository) -> list[Path]:
    """Return the packs to join next, of the smallest size with many; empty when there is none."""
    alone = _left_alone(repo)
    chosen = ([path for path in packs if path.stem not in alone] for packs in _sizes(repo).values())
    return next(filter(_is_many, chosen), [])


def _directory(repo: Repository) -> Path:
    return repo.commondir / "objects" / "pack"


def _stems(repo: Repository) -> dict[str, set[str]]:
    """Return the names of packs -> the suffixes of their files."""
    found: dict[str, set[str]] = defaultdict(set)
    for name in os.listdir(_directory(repo)) if _directory(repo).is_dir() else ():
        stem, suffix = os.path.splitext(name)
        if stem.startswith("pack-"):
            found[stem].add(suffix)
    return found


def _is_busy(repo: Repository) -> bool:
    """Return whether git's gc runs, which may be reading the packs."""
    try:
        return os.stat(repo.commondir / "gc.pid").st_mtime > time.time() - _LAPSE
    except FileNotFoundError:
        return False


def _left_alone(repo: Repository) -> set[str]:
    """Return the names of packs that a staged file, an index of git, or their deltas keep as they are."""
    named = b"".join(path.read_bytes() for kind in _MULTI for path in _directory(repo).glob(kind))
    return {
        *(path.stem for path in staged_packs(repo)),
        *(stem for stem in _stems(repo) if stem.encode() in named),
        *(_notes.read(_note(repo)) or "").split(),
    }


def _note(repo: Repository) -> Path:
    """Return the place of the note of packs that have deltas, or are damaged."""
    return repo.shared / "unjoined"


def _join(repo: Repository, packs: Sequence[Path]) -> bool:
    """Put the objects of ``packs`` into one pack, and remove them; return whether that was done.

    One that cannot be joined is noted instead, and nothing else happens.
    """
    try:
        with PackWriter(_directory(repo), lambda _: False, repo.format) as joined:
            for path in packs:
                for entry in _entries(path, repo.format):
                    joined.add(entry, is_new=True)
    except _UnfitError:
        here = set(_stems(repo))
        known = {*(_notes.read(_note(repo)) or "").split(), path.stem} & here
        _notes.write(_note(repo), "\n".join(sorted(known)))
        return False
    for path in packs:
        if path != joined.path:  # which one has when it holds all that the others do
            for suffix in (".pack", ".rev", ".idx"):  # nothing reads an index without its pack
                _fs.remove(path.with_suffix(suffix))
    return True


class _UnfitError(Exception):
    """A pack is not to be joined: it has deltas, or it is damaged."""


def _entries(path: Path, form: ObjectFormat) -> Iterator[PackEntry]:
    """Yield the objects of a pack as they stand in it; raises :class:`_UnfitError`."""
    index, data = path.with_suffix(".idx").read_bytes(), memoryview(path.read_bytes())
    if index[:8] != b"\xfftOc\0\0\0\2":
        raise _UnfitError
    try:
        (count,) = struct.unpack_from(">I", index, _TABLE - 4)
        crcs = struct.unpack_from(f">{count}I", index, _TABLE + form.size * count)
        offsets = struct.unpack_from(f">{count}I", index, _TABLE + (form.size + 4) * count)
    except struct.error as error:
        raise _UnfitError from error
    order = sorted(range(count), key=offsets.__getitem__)
    ends = [*(offsets[number] for number in order[1:]), len(data) - form.size]
    for number, end in zip(order, ends, strict=True):
        piece, start = data[offsets[number] : end], _TABLE + form.size * number
        if not piece or piece[0] >> 4 & 7 not in _WHOLE or zlib_ng.crc32(piece) != crcs[number]:
            raise _UnfitError
        yield PackEntry(index[start : start + form.size], crcs[number], (piece,))
