"""Checkpoints that come into a repository which theta has no part in yet.

They come by attributes that no small file tells of (in folders, or of the user), or as manifests out of
another branch without their attributes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from theta.cli import console, differing
from theta.cli.differing import Arrival
from theta.errors import ThetaError
from theta.lazy import Module

if TYPE_CHECKING:
    from theta.cli import common, invoking, terminal
    from theta.git import run
    from theta.porcelain.drive import running
    from theta.porcelain.setup import installing
    from theta.porcelain.workspace import checkpoints, session, tracking
    from theta.store.format import listings, manifest
else:
    checkpoints = Module("theta.porcelain.workspace.checkpoints")
    common = Module("theta.cli.common")
    installing = Module("theta.porcelain.setup.installing")
    invoking = Module("theta.cli.invoking")
    listings = Module("theta.store.format.listings")
    manifest = Module("theta.store.format.manifest")
    run = Module("theta.git.run")
    running = Module("theta.porcelain.drive.running")
    session = Module("theta.porcelain.workspace.session")
    terminal = Module("theta.cli.terminal")
    tracking = Module("theta.porcelain.workspace.tracking")

_BEGINNING: Final = 32
_OPEN: Final = ("unspecified", "theta")
"""Values of the attribute ``filter`` that leave room for theta's."""


def take_up(rows: set[Arrival]) -> bool:
    """Make checkpoints of those of ``rows`` that theta's filter is for, or that are manifests.

    Returns whether there are any.
    """
    filters = _filters(rows)
    manifests = {path for path in _manifests(rows) if filters.get(path) in _OPEN}
    tracked = {row for row in rows if filters.get(row.path) == "theta"}
    return bool(manifests or tracked) and _is_set_up(manifests, tracked)


def take_up_manifests(rows: set[Arrival]) -> bool:
    """Do as :func:`take_up` if any of ``rows`` is a manifest; git is not asked otherwise."""
    found = _manifests(rows)
    return bool(found) and take_up({row for row in rows if row.path in found})


def _is_set_up(manifests: set[str], tracked: set[Arrival]) -> bool:
    """Set up theta here, track ``manifests`` and fill them in, stage the raw bytes of ``tracked`` again."""
    here = session.Session.here(".")
    known = {path for path in manifests if _has_tensors(here, path)}
    if not (known or tracked):
        return False
    installing.ensure(here.repo)
    new = sorted(known - {row.path for row in tracked})
    if new:
        tracking.track(here, here.repo.worktree, new)
        for path in new:
            console.warn(f"{path} is a checkpoint of another branch; .gitattributes tracks it now")
    common.told(running.Driven(0, notes=running.after_git(here.again(), terminal.progress)))
    raw = sorted(row.path for row in tracked if row.is_staged and row.is_here and row.path not in manifests)
    if raw:
        invoking.invoke("add", "theta.cli.add", ["--", *(f":(top,literal){path}" for path in raw)])
    return True


def _has_tensors(here: session.Session, path: str) -> bool:
    """Return whether the tensors of a manifest, in the index or the worktree, are in this repository."""
    entry = next((entry for entry in here.repo.entries() if entry.path == path), None)
    try:
        data = here.repo.read_blob(entry.oid) if entry else (here.repo.worktree / path).read_bytes()
        if all(map(here.repo.obtains, listings.read(here.objects, data).trees())):
            return True
    except ThetaError:
        pass
    console.warn(f"{path} is only the manifest of a checkpoint; its tensors are not in this repository")
    return False


def _filters(rows: set[Arrival]) -> dict[str, str]:
    """Return path -> value of the attribute ``filter``."""
    if not rows:
        return {}
    root = differing.top()
    names = {os.path.relpath(root / row.path): row.path for row in rows}
    ask = "".join(f"{name}\0" for name in names).encode("utf-8", "surrogateescape")
    done = run.plain(Path.cwd()).run("check-attr", "-z", "--stdin", "filter", stdin=ask, check=False)
    fields = done.text.split("\0")
    return {names[name]: value for name, value in zip(fields[0:-1:3], fields[2::3], strict=False)}


def _manifests(rows: set[Arrival]) -> set[str]:
    """Return the paths of manifests; a blob is read only if the file in the worktree is another."""
    top = differing.top()
    found = {row.path for row in rows if _begins_as_manifest(top / row.path)}
    blobs = {row.path: row.oid for row in rows if row.oid and not row.is_here and row.path not in found}
    if blobs:
        found |= {one.path for one in checkpoints.by_content(session.Session.here(".").repo, blobs)}
    return found


def _begins_as_manifest(place: Path) -> bool:
    try:
        with open(place, "rb") as file:
            return manifest.looks_like_manifest(file.read(_BEGINNING))
    except OSError:
        return False
