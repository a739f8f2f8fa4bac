"""Manifests of very many tensors: groups of names, each listed in a blob of its own.

Hosts refuse large blobs, so a manifest whose text would pass ``PLAIN`` bytes names groups: all
tensors whose names begin alike, as few groups as have listings of at most ``LISTING`` bytes.  A
group is three lines too, its digest and its tree on one of them, so that what is said of merging
holds for groups: changes in different groups merge as text, changes in one group conflict (and
theta, which sees the tensors, settles them).
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, takewhile
from typing import Final

from theta.errors import ManifestError
from theta.git.object_format import TREE, format_of
from theta.git.object_values import MODE_BLOB, tree_bytes
from theta.store.format.manifest import Manifest, NameGroup, parse
from theta.store.odb.objects import Objects
from theta.store.odb.packs import PackWriter

PLAIN: Final = 6 << 20
LISTING: Final = 64 << 10
DIRECTORY: Final = "@lines"
FILE: Final = "lines"


def write(pack: PackWriter, manifest: Manifest) -> Manifest:
    """Store the listings of ``manifest`` if its text would be too large otherwise; return it in groups.

    Raises :class:`ManifestError` for a manifest that could not be read again.
    """
    groups = list(_groups(manifest))
    for _, data in groups:
        pack.tree([(FILE, MODE_BLOB, pack.blob(data, text=True))])
    arranged = _with(manifest, [group for group, _ in groups])
    return parse(arranged.data, lambda _: [data for _, data in groups])


def read(objects: Objects, data: bytes) -> Manifest:
    """Return the manifest that ``data`` spells, its listings read from the repository.

    Raises as :func:`theta.store.format.manifest.parse`, and :class:`MissingObjectsError`.
    """
    return parse(data, lambda groups: _fetched(objects, groups))


def places(manifest: Manifest) -> dict[str, str]:
    """Return directory below the store -> tree, of the listings of ``manifest``."""
    names = (hashlib.sha256(group.prefix.encode("utf-8", "surrogatepass")) for group in manifest.groups)
    return {
        f"{DIRECTORY}/{name.hexdigest()}": group.tree
        for name, group in zip(names, manifest.groups, strict=True)
    }


def _with(manifest: Manifest, groups: list[NameGroup]) -> Manifest:
    """Return ``manifest`` listed by ``groups``, its lines in the order in which a reader finds them."""
    lines = tuple(sorted(manifest.lines, key=lambda line: line.name)) if groups else manifest.lines
    return replace(manifest, lines=lines, groups=tuple(groups))


def _groups(manifest: Manifest) -> Iterator[tuple[NameGroup, bytes]]:
    """Yield the groups of a manifest that is too large for lines, with their listings."""
    if len(replace(manifest, groups=()).data) <= PLAIN:
        return
    ordered = sorted(manifest.lines, key=lambda line: line.name)
    texts = [line.text().encode() for line in ordered]
    for prefix, start, stop in _cut([line.name for line in ordered], [len(text) for text in texts]):
        data = b"".join(texts[start:stop])
        form = format_of(manifest.skeleton)
        body = tree_bytes([(FILE, MODE_BLOB, form.blob_id(data))])
        tree = form.object_id(TREE, (body,), len(body)).hex()
        yield NameGroup(prefix, stop - start, hashlib.sha256(data).hexdigest(), tree), data


def _cut(names: Sequence[str], sizes: Sequence[int]) -> Iterator[tuple[str, int, int]]:
    """Yield (prefix, start, stop) of each group of the sorted ``names``, whose lines have ``sizes``."""
    before = [0, *accumulate(sizes)]
    todo = [("", 0, len(names))]
    while todo:
        prefix, start, stop = todo.pop()
        if stop - start == 1 or before[stop] - before[start] <= LISTING:
            yield prefix, start, stop
        else:
            todo += reversed(list(_branches(names, start, stop)))


def _branches(names: Sequence[str], start: int, stop: int) -> Iterator[tuple[str, int, int]]:
    """Part a range at the first character in which its names differ."""
    pairs = zip(names[start], names[stop - 1], strict=False)
    length = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs)) + 1
    while start < stop:
        prefix = names[start][:length]
        end = bisect_right(names, prefix, start, stop, key=lambda name: name[:length])
        yield prefix, start, end
        start = end


def _fetched(objects: Objects, groups: Sequence[NameGroup]) -> Iterator[bytes]:
    """Yield the listings of ``groups``; a partial clone fetches at once those that it lacks."""
    objects.repo.promised.expect(group.tree for group in groups)
    blobs = [_blob(objects, group) for group in groups]
    objects.repo.promised.expect(blobs)
    return (objects.text(oid) for oid in blobs)


def _blob(objects: Objects, group: NameGroup) -> str:
    found = objects.files(group.tree)
    if found.keys() != {FILE}:
        raise ManifestError(f"the tree of group {group.prefix[:80]!r} is not one of a listing")
    return found[FILE]
