"""Lines of attributes that hold for a file in place of theta's: of Git LFS, of a nearer folder.

Of all lines that match a path, the last one of the nearest ``.gitattributes`` holds; those of
``$GIT_DIR/info/attributes`` come before all files (gitattributes(5)).  A line names an attribute by itself,
or by a macro.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from theta.git.attributes import ASK
from theta.git.repository import ATTRIBUTES, Repository
from theta.porcelain.setup import attribute_lines, attribute_probe
from theta.porcelain.setup.attribute_lines import AttributeLine

OWN: Final = {"filter": "theta", "diff": "theta", "merge": "text", "text": "unset"}
"""The attributes of a tracked pattern as ``git check-attr`` tells them, the weightiest first."""

LOCAL: Final = "info/attributes"
"""The file of the repository, which is of this clone alone."""

_MACRO: Final = "[attr]"
_BUILT_IN: Final = {"binary": ("-diff", "-merge", "-text")}

_Macros = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Claim:
    """An attribute of a file that holds in place of theta's, and its line.

    Attributes:
        said: the attribute, as it is written in such a file.
        folder: the folder of the ``.gitattributes`` from the root; None for that of the repository.
        number: the number of the line, from 1; 0 when no file that theta reads has the line.
        text: the line.
    """

    said: str
    folder: str | None = None
    number: int = 0
    text: str = ""

    @property
    def is_filter(self) -> bool:
        """Whether it gives the file another filter, or none: theta does not store the file."""
        return self.said.lstrip("-!").partition("=")[0] == "filter"

    @property
    def file(self) -> str:
        """The file of the line, from the root of the worktree."""
        if self.folder is None:
            return f".git/{LOCAL}"
        return f"{self.folder}/{ATTRIBUTES}" if self.folder else ATTRIBUTES

    @property
    def place(self) -> str:
        """The file and the line, as compilers write them."""
        return f"{self.file}:{self.number}" if self.number else "an attributes file outside the repository"

    def __str__(self) -> str:
        return f"{self.said} from {self.place}"


def told(held: Mapping[str, Claim], command: str) -> str:
    """Return one line about the files ``held`` of theta's patterns, and the ``command`` that mends it."""
    path, claim = next(iter(held.items()))
    more, them = (f" (and {len(held) - 1} more)", "them") if len(held) > 1 else ("", "it")
    return f"{path} has {claim}{more}; to give {them} to theta: {command}"


def mend(patterns: Iterable[str]) -> str:
    """Return the command that gives the files of ``patterns`` to theta."""
    return f"theta track --override {shlex.join(patterns)}"


@dataclass(frozen=True)
class _Numbered:
    folder: str | None
    number: int
    line: AttributeLine


def held(repo: Repository, scratch: Path, paths: Sequence[str]) -> dict[str, Claim]:
    """Return path -> what holds there in place of theta's line, for files that a pattern of theta matches.

    ``paths`` are from the root of the worktree; ``scratch`` is a folder for temporary files.
    """
    wrong = _wrong(repo, paths)
    if not wrong:
        return {}
    rows, macros = _rows(repo, wrong), _macros(repo)
    patterns = [attribute_probe.from_root(row.folder or "", row.line.pattern) for row in rows]
    matched = attribute_probe.matches(repo, scratch, patterns, list(wrong))
    last: dict[str, Claim] = {}
    for row, files in zip(rows, matched, strict=True):  # later rows hold
        for path in files:
            if _sets(row.line.attributes, wrong[path][0], macros):
                last[path] = Claim(_said(*wrong[path]), row.folder, row.number, row.line.text)
    unseen = {path: Claim(_said(*pair)) for path, pair in wrong.items() if pair[0] == "filter"}
    return unseen | last


def _wrong(repo: Repository, paths: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return path -> the weightiest attribute that is not theta's, and its value."""
    if not paths:
        return {}
    wanted = "".join(path + "\0" for path in paths).encode("utf-8", "surrogateescape")
    fields = repo.git().lines(*ASK, *OWN, stdin=wanted)
    wrong: dict[str, tuple[str, str]] = {}
    for path, name, value in zip(fields[0::3], fields[1::3], fields[2::3], strict=True):
        if value != OWN[name]:
            wrong.setdefault(path, (name, value))
    return wrong


def _said(name: str, value: str) -> str:
    return {"unset": f"-{name}", "unspecified": f"!{name}", "set": name}.get(value, f"{name}={value}")


def _rows(repo: Repository, paths: Iterable[str]) -> list[_Numbered]:
    """Return the lines of all files that may match one of ``paths``; those that hold come last."""
    folders = {""}
    for path in paths:
        while path := path.rpartition("/")[0]:
            folders.add(path)
    rows: list[_Numbered] = []
    for folder in sorted(folders, key=lambda name: (name.count("/") + bool(name), name)):
        name = f"{folder}/{ATTRIBUTES}" if folder else ATTRIBUTES
        rows += _numbered(folder, _of_worktree(repo, name))
    return [*rows, *_numbered(None, attribute_lines.read(repo.commondir / LOCAL))]


def _numbered(folder: str | None, lines: Sequence[AttributeLine]) -> Iterator[_Numbered]:
    for number, line in enumerate(lines, 1):
        if line.attributes and not line.pattern.startswith((_MACRO, "!")):
            yield _Numbered(folder, number, line)


def _of_worktree(repo: Repository, name: str) -> list[AttributeLine]:
    """Return the lines of a file as git reads it: of the index where the worktree has none."""
    place = repo.worktree / name
    if os.path.lexists(place):
        return [] if place.is_symlink() else attribute_lines.read(place)  # git follows no link
    oid = repo.attribute_files().get(name)
    return attribute_lines.of_file(repo.read_blob(oid)) if oid is not None else []


def _macros(repo: Repository) -> _Macros:
    """Return the macros: they stand in the file of the user, of the root or of the repository."""
    folder = repo.git().environment().get("XDG_CONFIG_HOME") or "~/.config"
    named = repo.config.get("core.attributesfile") or f"{folder}/git/attributes"
    users = Path(named).expanduser()
    files = (attribute_lines.read(users), _of_worktree(repo, ATTRIBUTES))
    lines = [*files[0], *files[1], *attribute_lines.read(repo.commondir / LOCAL)]
    known: dict[str, tuple[str, ...]] = dict(_BUILT_IN)
    for line in lines:
        if line.pattern.startswith(_MACRO):
            known[line.pattern.removeprefix(_MACRO)] = line.attributes
    return known


def _sets(words: Sequence[str], name: str, macros: _Macros) -> bool:
    """Return whether ``words`` decide the attribute ``name``, some of them by macros."""
    left, seen = list(words), set()  # a macro may name itself
    while left:
        word = left.pop()
        if word.lstrip("-!").partition("=")[0] == name:
            return True
        if word in macros and word not in seen:
            seen.add(word)
            left += macros[word]
    return False
