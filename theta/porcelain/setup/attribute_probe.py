"""The matching of paths by patterns of attributes, which git itself does.

Each pattern sets an attribute of its own, in a file that ``core.attributesFile`` names for one question.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from theta import _fs
from theta.git.attributes import ASK
from theta.git.repository import Repository
from theta.porcelain.setup import attribute_lines


def matches(
    repo: Repository, scratch: Path, patterns: Sequence[str], paths: Sequence[str]
) -> list[list[str]]:
    """Return those of ``paths`` that each of ``patterns`` matches, both from the root of the worktree.

    ``scratch`` is a folder for temporary files.
    """
    if not (patterns and paths):
        return [[] for _ in patterns]
    names = [f"probe-{n}" for n in range(len(patterns))]
    rows = "".join(f"{pattern} {name}\n" for pattern, name in zip(patterns, names, strict=True))
    probe = scratch / _fs.own_temporary("patterns")
    _fs.write_atomic(probe, rows.encode("utf-8", "surrogateescape"), durable=False)
    try:
        wanted = "".join(path + "\0" for path in paths).encode("utf-8", "surrogateescape")
        fields = repo.git().lines("-c", f"core.attributesFile={probe}", *ASK, *names, stdin=wanted)
    finally:
        _fs.remove(probe)
    found: dict[str, list[str]] = {name: [] for name in names}
    for path, name, value in zip(fields[0::3], fields[1::3], fields[2::3], strict=True):
        if value == "set":
            found[name].append(path)
    return list(found.values())


def from_root(folder: str, pattern: str) -> str:
    """Return ``pattern`` of the ``.gitattributes`` in ``folder`` ('' for the root) as one of the root."""
    if not folder:
        return pattern
    inner = pattern.removeprefix("/") if "/" in pattern else f"**/{pattern}"
    return f"{attribute_lines.literal(folder)}/{inner}"
