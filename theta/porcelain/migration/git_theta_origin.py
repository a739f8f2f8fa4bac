"""git-theta (Kandpal et al., ICML 2023): metadata in the history, tensors as objects of Git LFS.

A tensor is dense, or an update of the one of an earlier commit: ``R @ C`` (low-rank), the elements that
changed (sparse), or a factor (ia3).  The values are those that ``git-theta-filter smudge`` gives.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from theta._numpy import np
from theta.errors import MALFORMED, CorruptError, FormatError, NotFoundError, concerning
from theta.formats import safetensors, writers
from theta.formats.layout import Source
from theta.git import lfs
from theta.git.object_values import Tree
from theta.git.repository import Repository
from theta.porcelain.migration import zarr_arrays
from theta.porcelain.migration.lfs_origin import LfsFiles
from theta.porcelain.migration.origins import Elsewhere, Selected, Stub
from theta.porcelain.tensors.converting import SUFFIXES

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAX_BYTES: Final = 256 << 20
_LEAF: Final = "lfs_metadata"
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_LONGEST: Final = 10_000
"""Updates on top of each other that are followed."""

ParamKeys = tuple[str, ...]
ParamMetadata = Mapping[str, Any]


class GitThetaOrigin:
    """Checkpoints of git-theta, written as their suffix says."""

    label = "git-theta"

    def __init__(self, repo: Repository, wanted: Selected) -> None:
        self._repo, self._wanted, self._lfs = repo, wanted, LfsFiles(repo)
        self._parsed: dict[str, dict[ParamKeys, ParamMetadata] | None] = {}

    def found(self, tree: Tree) -> Elsewhere:
        """Return the checkpoints of ``tree``."""
        found = Elsewhere()
        for path, entry in self._repo.walk_blobs(tree):
            rows = self._rows(entry.id)
            if rows is None:
                continue
            if self._wanted(path):
                found.files[path] = self._stub(path, entry.id, rows)
            else:
                found.left.add(path)
        return found

    def _rows(self, oid: str) -> dict[ParamKeys, ParamMetadata] | None:
        """Return keys -> metadata of the tensors in a blob; None when it is no metadata of git-theta."""
        if oid not in self._parsed:
            blob = self._repo.blob(oid)
            fits = blob is not None and blob.size <= _MAX_BYTES
            data = blob.data if blob is not None and fits else b""
            self._parsed[oid] = parse(data) if f'"{_LEAF}"'.encode() in data else None
        return self._parsed[oid]

    def _stub(self, path: str, oid: str, rows: Mapping[ParamKeys, ParamMetadata]) -> Stub:
        pointers = [_pointer(row) for row in rows.values()]
        gone = [pointer for pointer in pointers if not lfs.place(self._repo, pointer.oid).is_file()]
        lack = f"{len(gone)} of {len(pointers)} tensors are not fetched" if gone else ""
        return Stub(oid, 0, lambda: self._open(path, rows), lack)

    @contextlib.contextmanager
    def _open(self, path: str, rows: Mapping[ParamKeys, ParamMetadata]) -> Iterator[Source]:
        with concerning(path):
            yield _written(path, {keys: self._value(path, keys, row) for keys, row in rows.items()})

    def _value(self, path: str, keys: ParamKeys, row: ParamMetadata) -> NDArray[Any]:
        """Return a tensor: the last dense one, with the updates since then."""
        updates: list[tuple[str, Any]] = []
        while (kind := str(row["theta_metadata"]["update_type"])) != "dense":
            updates.append((kind, self._stored(row)))
            if len(updates) > _LONGEST:
                raise CorruptError("the updates of a tensor have no beginning")
            row = self._before(path, keys, row)
        value = self._stored(row)["parameter"]
        for kind, update in reversed(updates):
            value = applied(kind, update, value)
        return value

    def _stored(self, row: ParamMetadata) -> dict[str, NDArray[Any]]:
        with self._lfs.opened(_pointer(row)) as source:
            return zarr_arrays.unpacked(source.read(0, source.size))

    def _before(self, path: str, keys: ParamKeys, row: ParamMetadata) -> ParamMetadata:
        """Return the metadata of the tensor that ``row`` updates."""
        commit = str(row["theta_metadata"].get("last_commit") or "")
        entry = self._repo.tree_of(commit).get(path) if self._repo.commit_of(commit) else None
        rows = self._rows(entry.id) if entry is not None else None
        if rows is None or keys not in rows:
            raise NotFoundError(
                f"{'/'.join(keys)} is an update of {path} in commit {commit[:12]}, which is not here"
            )
        return rows[keys]


def applied(kind: str, update: Mapping[str, NDArray[Any]], before: NDArray[Any]) -> NDArray[Any]:
    """Return ``before`` with an ``update`` of git-theta; raises :class:`FormatError` for another kind."""
    change = update.get("parameter")
    if kind == "ia3":
        scaled: NDArray[Any] = np.multiply(before, update["ia3"])
        return scaled
    if kind == "sparse":
        change = np.zeros(before.size, update["data"].dtype)
        np.add.at(change, update["indices"], update["data"])
        change = change.reshape(tuple(update["shape"]))
    elif kind != "low-rank":
        raise FormatError(f"an update of the kind {kind!r} is not known")
    elif change is None:
        change = update["R"] @ update["C"]
    made: NDArray[Any] = np.add(change, before)
    return made


def parse(data: bytes) -> dict[ParamKeys, ParamMetadata] | None:
    """Return the tensors that metadata names; None when ``data`` is something else."""
    try:
        root = json.loads(data)
        found = dict(_leaves(root, ()))
        for row in found.values():
            _pointer(row), row["theta_metadata"]["update_type"]
    except MALFORMED:
        return None
    return found


def _leaves(node: Any, above: ParamKeys) -> Iterator[tuple[ParamKeys, ParamMetadata]]:
    for key, value in node.items():
        if _LEAF in value:
            yield (*above, key), value
        else:
            yield from _leaves(value, (*above, key))


def _pointer(row: ParamMetadata) -> lfs.LfsPointer:
    oid = row[_LEAF]["oid"]
    if not _SHA256.fullmatch(oid):
        raise ValueError(oid)
    return lfs.LfsPointer(oid, int(row[_LEAF]["size"]))


def _written(path: str, values: Mapping[ParamKeys, NDArray[Any]]) -> Source:
    """Return the file of these tensors, in the format of the suffix; names of nested ones have dots."""
    name = SUFFIXES.get("." + path.rpartition(".")[2].lower())
    if name is None:
        raise FormatError(f"theta cannot write {path}", hint=f"it writes {', '.join(SUFFIXES)}")
    arrays = {".".join(keys): value for keys, value in sorted(values.items())}
    return writers.in_memory(name, arrays, {"format": "np"} if name == safetensors.NAME else None)
