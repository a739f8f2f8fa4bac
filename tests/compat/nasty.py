"""Eighty nasty names, as paths, stores, tensors, branches and arguments of a repository that means harm."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pygit2
from pygit2.enums import ObjectType

from tests.compat.inprocess import started, theta
from tests.compat.story import MODEL
from tests.support import Repo, make_model, random_tensors

NAMES: Final = (
    *("..", ".", "../x", "../outside/precious", "sub/../../outside/precious", "a/./b", "a//b"),
    *("/tmp/theta-nasty", ".git", ".GIT", ".git/hooks/post-checkout", ".Git/config", "git~1", "git~2"),
    *(".git\u200c", ".g\u200dit/config", ".git\ufeff/x", ".git ", ".git."),
    *(".git::$INDEX_ALLOCATION/config", ".git\\hooks\\post-checkout", "..\\outside\\precious", "C:\\x"),
    *("a\\..\\b", "sub/.git/hooks/post-checkout", "sub/.git", ".git/modules/x/config", ".gitmodules"),
    *(".gitattributes", ".gitignore", ".mailmap", ".theta", ".theta/x", ".theta/" + MODEL, ".THETA/x"),
    *("-rf", "--", "-", "--upload-pack=pwn", "--exec=pwn", "--receive-pack=pwn"),
    *("--config=core.fsmonitor=pwn", "-ccore.sshCommand=pwn", "--output=../outside/precious"),
    *("--git-dir=../outside", "-C../outside", "@", "HEAD", "@{-1}", ":(glob)**", ":!x", ":/"),
    *(":(attr:filter=theta)x", "*", "[a-z]*?", "$(pwn)", "`pwn`", "|pwn", "; pwn", "& pwn &", "a\npwn\n"),
    *("ext::pwn", "${IFS}pwn", "!pwn", "\x1b]0;pwn\x07\x1b[2J", "\u202etxt.exe", "\r\x08x", "caf\udce9"),
    *("link/x", "tracked-link/precious", f"{MODEL}/x", MODEL[:-1], "code.py/x", "x" * 255, "x" * 4000),
    *("d/" * 60 + "x", "con", "aux.safetensors", "nul.", "core.hooksPath=pwn", "store x", "<<<<<<< x"),
    "theta checkpoint 1",
)
"""Names of files, as git stores them; ``pwn`` is a program that leaves a mark where it ran."""

_CHANGING: Final = ("branch.", "remote.", "filter.", "core.repositoryformat", "extensions.")
EVIL: Final = "evil.safetensors"
TENSOR_NAME: Final = "name-to-come"
FILE, PROGRAM, LINK, SUBMODULE = 0o100644, 0o100755, 0o120000, 0o160000
"""Modes of entries of trees."""


@dataclass(frozen=True)
class Box:
    """A place with a repository, its remote, and files outside of both that nothing may touch."""

    place: Path

    @property
    def repo(self) -> Repo:
        """The repository."""
        return Repo(self.place / "repo", 100)

    def copy(self, place: Path) -> Box:
        """Copy the place; the link in the repository points into the copy."""
        shutil.copytree(self.place, place, symlinks=True)
        return Box(place)

    def outside(self) -> dict[str, object]:
        """List the files outside of the repository, the remote's objects and refs, and the results' folder.

        Hooks and settings count as outside; settings of branches and remotes do not.
        """
        found: dict[str, object] = {}
        for top in (self.place, Path(os.environ["HOME"])):
            for folder, folders, files in os.walk(top):
                if Path(folder) == self.place:
                    folders[:] = sorted({*folders} - {"repo", "up.git", "into"})
                for name in (*folders, *files):
                    path = os.path.join(folder, name)
                    data = os.lstat(path)
                    found[path] = (
                        data.st_mode,
                        data.st_size * (name in files),
                        data.st_mtime_ns * (name in files),
                    )
        for own in (self.place / "repo/.git", self.place / "up.git"):
            for hook in (own / "hooks").iterdir():
                found[str(hook)] = hook.read_bytes()
            config = pygit2.Config(str(own / "config"))
            found[str(own)] = {
                (entry.name, entry.value)
                for entry in config
                if not entry.name.startswith(
                    ("branch.", "remote.", "filter.", "core.repositoryformat", "extensions.")
                )
            }
        return found


def base(place: Path, pwn: Path) -> Box:
    """A repository with a remote, a run's branch, a link to a folder outside and one that is committed."""
    repo = started(place / "repo")
    (place / "outside").mkdir()
    (place / "outside" / "precious").write_text("precious\n")
    (repo.path / "tracked-link").symlink_to("../outside")
    (repo.path / "link").symlink_to("../outside")
    make_model(repo.path / EVIL, random_tensors({"w": (16, 16), TENSOR_NAME: (8,)}, 3))
    repo.write(".gitattributes", "* filter=theta diff=theta merge=theta -text\n")
    theta(repo, "add", "tracked-link", EVIL)
    theta(repo, "commit", "-q", "-m", "all", "--", ".")
    repo.git("repack", "-adq")
    repo.git("clone", "-q", "--bare", ".", "../up.git")
    repo.git("remote", "add", "origin", "../up.git")
    pwn.parent.mkdir()
    pwn.write_text(f"#!/bin/sh\ntouch '{pwn}.ran'\n")
    pwn.chmod(0o755)
    return Box(place)


def hostile(box: Box, name: str, place: Path) -> Box:
    """A copy of ``box`` with branches that mean harm by ``name``.

    ``hostile`` has a checkpoint at that path, with a tensor of that name, ``store`` one whose store is named
    so, and where files can be a branch is named so.  The remote has the same.
    """
    box = box.copy(place)
    raw = pygit2.Repository(str(box.repo.path))
    rows = _rows(raw, raw.revparse_single("main^{tree}").id)
    stores = _rows(raw, rows[".theta"][1])
    manifest = raw.read(rows.pop(EVIL)[1])[1].replace(TENSOR_NAME.encode(), os.fsencode(name))
    tip = _committed(raw, "hostile", _tree(raw, rows | _nested(raw, rows, name, _blob(raw, manifest))))
    changed = manifest.replace(b"\nstore " + EVIL.encode(), b"\nstore " + os.fsencode(name), 1)
    held = _tree(raw, stores | _nested(raw, stores, name, stores[EVIL]))
    _committed(raw, "store", _tree(raw, rows | {EVIL: _blob(raw, changed), ".theta": (0o40000, held)}))
    heads = box.repo.path / ".git/refs/heads"
    with contextlib.suppress(OSError):
        if (heads / name).resolve().is_relative_to(heads):
            (heads / name).parent.mkdir(parents=True, exist_ok=True)
            (heads / name).write_text(f"{tip}\n")
    _send(box)
    return box


def planted(box: Box, files: Mapping[str, tuple[int, bytes]], place: Path) -> Box:
    """A copy of ``box`` whose branches ``hostile`` and ``store`` have these files beside those of main.

    They are path -> mode and content, which is the id of the commit of a submodule.  The remote has the same.
    """
    box = box.copy(place)
    raw = pygit2.Repository(str(box.repo.path))
    rows = _rows(raw, raw.revparse_single("main^{tree}").id)
    for path, (mode, content) in files.items():
        oid = pygit2.Oid(hex=content.decode()) if mode == SUBMODULE else raw.create_blob(content)
        rows |= _nested(raw, rows, path, (mode, oid))
    tree = _tree(raw, rows)
    for branch in ("hostile", "store"):
        _committed(raw, branch, tree)
    _send(box)
    return box


def _send(box: Box) -> None:
    """Let the remote have all that the repository has."""
    for part in ("objects", "refs"):
        shutil.copytree(box.repo.path / ".git" / part, box.place / "up.git" / part, dirs_exist_ok=True)


Row = tuple[int, pygit2.Oid]


def _rows(raw: pygit2.Repository, oid: pygit2.Oid) -> dict[str, Row]:
    tree = raw[oid]
    assert isinstance(tree, pygit2.Tree)
    return {str(entry.name): (int(entry.filemode), entry.id) for entry in tree}


def _tree(raw: pygit2.Repository, rows: dict[str, Row]) -> pygit2.Oid:
    """Write a tree of any names, in git's order."""
    order = sorted(rows.items(), key=lambda row: os.fsencode(row[0]) + b"/" * (row[1][0] == 0o40000))
    data = b"".join(b"%o %s\0" % (mode, os.fsencode(name)) + oid.raw for name, (mode, oid) in order)
    return raw.write(ObjectType.TREE, data)


def _nested(raw: pygit2.Repository, rows: dict[str, Row], path: str, row: Row) -> dict[str, Row]:
    """The row of the first part of ``path``, which ends in ``row``, beside what ``rows`` have there."""
    first, _, rest = path.partition("/")
    if not rest:
        return {first: row}
    below: dict[str, Row] = {}
    if first in rows and rows[first][0] == 0o40000:
        below = _rows(raw, rows[first][1])
    return {first: (0o40000, _tree(raw, below | _nested(raw, below, rest, row)))}


def _committed(raw: pygit2.Repository, branch: str, tree: pygit2.Oid) -> pygit2.Oid:
    """Write a commit on top of main; libgit2 would look at the tree's names."""
    person = "Eve <eve@example.com> 1112911993 +0000"
    parent = str(raw.references["refs/heads/main"].target)
    lines = (f"tree {tree}", f"parent {parent}", f"author {person}", f"committer {person}", "", branch, "")
    text = "\n".join(lines).encode()
    tip = raw.write(ObjectType.COMMIT, text)
    raw.references.create(f"refs/heads/{branch}", tip)
    return tip


def _blob(raw: pygit2.Repository, data: bytes) -> Row:
    return 0o100644, raw.create_blob(data)
