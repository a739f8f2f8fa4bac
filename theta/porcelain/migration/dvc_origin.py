"""DVC: ``.dvc`` files in the history name files of a cache by their MD5."""

from __future__ import annotations

import configparser
import contextlib
import json
import posixpath
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import yaml

from theta.errors import CorruptError, FormatError, NotFoundError
from theta.formats.layout import Source
from theta.git.object_values import Tree
from theta.git.repository import Repository
from theta.porcelain.migration.digests import md5_of
from theta.porcelain.migration.origins import Elsewhere, Selected, Stub
from theta.store.files.file_source import FileSource

_SUFFIX: Final = ".dvc"
_MAX_BYTES: Final = 1 << 20
_MAX_FOLDER: Final = 64 << 20
_MD5: Final = re.compile(r"[0-9a-f]{32}(\.dir)?")
_HINT: Final = "'dvc fetch --all-commits' fetches every version"
_FOLDER: Final = ".dir"


class DvcCache:
    """The files that DVC keeps, by their MD5; caches of DVC 2 and 3 alike."""

    def __init__(self, repo: Repository) -> None:
        self._repo = repo

    @cached_property
    def _roots(self) -> tuple[Path, ...]:
        root = self._directory()
        return root / "files" / "md5", root

    def _directory(self) -> Path:
        """Return the cache: ``cache.dir`` of the configuration, relative to it, or ``.dvc/cache``."""
        home = self._repo.top / ".dvc"
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        with contextlib.suppress(configparser.Error, OSError, UnicodeDecodeError):
            parser.read([home / "config", home / "config.local"])
        said = parser.get("cache", "dir", fallback="cache")
        return home / Path(said).expanduser()

    def place(self, md5: str) -> Path | None:
        """Return the place of a file; None when it is not in the cache."""
        places = (root / md5[:2] / md5[2:] for root in self._roots)
        return next((place for place in places if place.is_file()), None)

    def stub(self, md5: str, size: int) -> Stub:
        """Return the file whose MD5 is ``md5``."""
        lack = "" if self.place(md5) else f"DVC's cache has no {md5[:12]}: {_HINT}"
        return Stub(md5, size, lambda: self.opened(md5), lack)

    @contextlib.contextmanager
    def opened(self, md5: str) -> Iterator[Source]:
        """Open a file; raises :class:`CorruptError` if it has another MD5 than its name."""
        place = self.place(md5)
        if place is None:
            raise NotFoundError(f"DVC's cache has no {md5[:12]}", hint=_HINT)
        with FileSource(place, f"DVC's {md5[:12]}") as source:
            if md5_of(source) != md5.removesuffix(_FOLDER):
                raise CorruptError(f"{source.label} has other bytes than its name says")
            yield source

    def folder(self, md5: str) -> list[tuple[str, str]]:
        """Return (path below it, MD5) of the files of a folder; raises :class:`FormatError`."""
        with self.opened(md5) as source:
            if source.size > _MAX_FOLDER:
                raise FormatError(f"DVC's folder {md5[:12]} lists too many files")
            rows = _parsed(source.read(0, source.size))
        if not isinstance(rows, list):
            raise FormatError(f"DVC's folder {md5[:12]} is no list")
        pairs = [(row.get("relpath"), row.get("md5")) for row in rows if isinstance(row, dict)]
        return [(path, str(oid)) for path, oid in pairs if isinstance(path, str) and _is_md5(oid)]


def _parsed(data: bytes) -> Any:
    """Return the value of a text of JSON; None when it is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _is_md5(value: object) -> bool:
    return isinstance(value, str) and _MD5.fullmatch(value) is not None


class DvcOrigin:
    """Outputs of ``.dvc`` files; those of pipelines (``dvc.lock``) stay DVC's."""

    label = "DVC"

    def __init__(self, repo: Repository, wanted: Selected) -> None:
        self._repo, self._wanted, self._cache = repo, wanted, DvcCache(repo)

    def found(self, tree: Tree) -> Elsewhere:
        """Return the outputs of ``tree``; a ``.dvc`` file whose outputs are all taken goes."""
        found = Elsewhere()
        for path, entry in self._repo.walk_blobs(tree):
            blob = self._repo.blob(entry.id) if path.endswith(_SUFFIX) else None
            if blob is not None and blob.size <= _MAX_BYTES:
                self._outputs(found, tree, path, blob.data)
        return found

    def _outputs(self, found: Elsewhere, tree: Tree, path: str, data: bytes) -> None:
        """Add the outputs of the ``.dvc`` file at ``path``; it stays while DVC keeps any of them."""
        coming = dict[str, Stub]()
        outs, are_all = _outs(path, data)
        found.left |= set() if are_all else {path}
        for out in outs:
            place, md5, size = _place(path, out), out["md5"], out.get("size")
            inner = [("", md5)] if not md5.endswith(_FOLDER) else self._cache.folder(md5)
            inside = {_below(place, name): oid for name, oid in inner}
            if any(map(self._wanted, inside)):
                total = size if isinstance(size, int) and len(inside) == 1 else 0
                coming |= {at: self._cache.stub(oid, total) for at, oid in inside.items()}
                self._unignore(found, tree, place)
            else:
                found.left.add(path)
        found.files |= {at: stub for at, stub in coming.items() if self._wanted(at)}
        found.plain |= {at: stub for at, stub in coming.items() if not self._wanted(at)}
        if coming and path not in found.left:
            found.others[path] = None

    def _unignore(self, found: Elsewhere, tree: Tree, output: str) -> None:
        """Take ``output`` out of the ``.gitignore`` in which DVC put it."""
        folder, _, name = output.rpartition("/")
        place = posixpath.join(folder, ".gitignore")
        entry = tree.get(place)
        data = found.others.get(place) or (self._repo.read_blob(entry.id) if entry is not None else b"")
        rows = data.splitlines(keepends=True)
        kept = [row for row in rows if row.strip() != f"/{name}".encode()]
        if len(kept) < len(rows):
            found.others[place] = b"".join(kept) or None


def _outs(path: str, data: bytes) -> tuple[list[dict[str, Any]], bool]:
    """Return the outputs with an MD5, and whether those are all.

    Raises :class:`FormatError` for a file that is no YAML.
    """
    try:
        root = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"{path} is not a file of DVC") from error
    outs = root.get("outs") if isinstance(root, dict) else None
    rows = outs if isinstance(outs, list) else []
    base = str(root.get("wdir") or ".") if isinstance(root, dict) else "."
    found = [{**row, "wdir": base} for row in rows if isinstance(row, dict) and _is_md5(row.get("md5"))]
    return found, len(found) == len(rows)


def _place(path: str, out: dict[str, Any]) -> str:
    """Return the path of an output from the root; raises :class:`FormatError` for one outside of it."""
    folder = path.rpartition("/")[0]
    place = posixpath.normpath(posixpath.join(folder, out["wdir"], str(out.get("path") or "")))
    if place.startswith(("/", "..")) or place == ".":
        raise FormatError(f"{path} has an output outside of the repository")
    return place


def _below(place: str, name: str) -> str:
    found = posixpath.normpath(posixpath.join(place, name))
    if name and not found.startswith(f"{place}/"):
        raise FormatError(f"a folder of DVC at {place} has a file outside of it")
    return found
