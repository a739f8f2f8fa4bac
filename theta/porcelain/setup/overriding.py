"""Lines of theta's that hold in place of those that claim a file: their places, and writing them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from theta.git.repository import ATTRIBUTES, Repository
from theta.porcelain.setup import attribute_lines, attribute_probe, claims, installing
from theta.porcelain.setup.claims import Claim
from theta.units import first_names

Overriding = Mapping[str, Sequence[str]]
"""Folder of a ``.gitattributes`` -> patterns; :data:`claims.LOCAL` is the repository's own file."""


def wanted(
    folder: str, patterns: Sequence[str], matched: Sequence[Sequence[str]], held: Mapping[str, Claim]
) -> dict[str, list[str]]:
    """Return the lines that give theta the claimed files which each of ``patterns`` of ``folder`` matches."""
    found: dict[str, dict[str, None]] = {}
    for pattern, paths in zip(patterns, matched, strict=True):
        for path in paths:
            if (claim := held.get(path)) is not None:
                where, line = _winning(folder, pattern, path, claim)
                found.setdefault(where, {})[line] = None
    return {where: list(lines) for where, lines in found.items()}


def _winning(folder: str, pattern: str, path: str, claim: Claim) -> tuple[str, str]:
    """Return where theta's line for ``path`` is to stand, and its pattern there."""
    if claim.folder is None:
        return (
            (claims.LOCAL, attribute_probe.from_root(folder, pattern)) if claim.number else (folder, pattern)
        )
    below = claim.folder
    if below == folder or not below.startswith(f"{folder}/" if folder else ""):
        return folder, pattern
    return below, pattern if "/" not in pattern else "/" + attribute_lines.literal(path[len(below) + 1 :])


def write(repo: Repository, lines: Overriding) -> None:
    """Write ``lines`` as the last of their files, and leave all others there."""
    for where, patterns in lines.items():
        after = attribute_lines.read(place(repo, where))
        for pattern in patterns:
            after = attribute_lines.with_last(after, pattern)
        attribute_lines.write(place(repo, where), after)
    installing.ensure_attributes(repo)


def place(repo: Repository, where: str) -> Path:
    """Return the file of attributes that ``where`` names, a key of :data:`Overriding`."""
    return repo.commondir / where if where == claims.LOCAL else repo.worktree / where / ATTRIBUTES


def told(lines: Overriding) -> list[str]:
    """Return a sentence for each file on what was written to it."""
    names = {where: first_names([*map(attribute_lines.shown, lines[where])]) for where in lines}
    return [f"{_name(where)}: theta's line for {name} is the last" for where, name in names.items()]


def _name(where: str) -> str:
    return f"{Claim('').file} (this clone alone)" if where == claims.LOCAL else Claim("", where).file
