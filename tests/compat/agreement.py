"""The checks after every command: git, theta and the files agree.

All of it is recomputed from what plain git prints; nothing here imports theta.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from tests.support import Repo, sha256
from tests.support.repos import describe

STORES: Final = ".theta/"
MAGIC: Final = "theta checkpoint "

Files = frozenset[tuple[str, str]]
_trees: dict[str, Files] = {}
_texts: dict[str, str] = {}
"""The texts of manifests by their ids: ``git fsck`` tells whether a repository lacks one."""
_indexes: dict[bytes, str] = {}
"""The output of ``git ls-files`` by the bytes of the index, from which alone it is read."""


@dataclass(frozen=True)
class Entry:
    """A row of ``git ls-files -s -t``."""

    tag: str
    oid: str
    stage: int
    path: str


@dataclass(frozen=True)
class Manifest:
    """The ids that a manifest names, read by the letter of the format's specification."""

    store: str
    skeleton: str
    tensors: tuple[tuple[str, str], ...]


def assert_agreement(repo: Repo, files: Mapping[str, str] | None = None) -> None:
    """Assert that index, HEAD, worktree, ``git status`` and ``theta status`` tell one story.

    ``files``: path -> the sha256 that the file in the worktree must have.  What plain git
    shows is looked at before any theta command could put it right.
    """
    seen = git_status(repo)
    assert_index(repo)
    assert_worktree(repo, files or {})
    if repo.try_git("rev-parse", "--verify", "-q", "HEAD").returncode == 0:
        assert_commit(repo, "HEAD")
        repo.fsck()
    else:  # git fsck has something to say of an unborn branch
        repo.git("fsck", "--full", "--strict")
    assert theta_status(repo) == seen
    assert git_status(repo) == seen
    assert_index(repo)


def assert_index(repo: Repo) -> None:
    """Assert that ``.theta/`` in the index is the closure of the staged manifests, and hidden."""
    entries = index_entries(repo)
    unmerged = [entry.path for entry in entries if entry.stage]
    assert unmerged == []
    stores = {entry.path: entry.oid for entry in entries if entry.path.startswith(STORES)}
    staged = {entry.path: entry.oid for entry in entries if not entry.path.startswith(STORES)}
    assert_closure(repo, staged, stores)
    shown = [entry.path for entry in entries if entry.path.startswith(STORES) and entry.tag != "S"]
    assert shown == [], f"not skip-worktree: {shown}"


def assert_commit(repo: Repo, revision: str) -> None:
    """Assert that ``.theta/`` in a commit is the closure of its manifests."""
    rows = repo.git("ls-tree", "-r", "-z", "--full-tree", revision).split("\0")
    entries = {path: head.split(" ")[2] for head, _, path in (row.partition("\t") for row in rows if row)}
    stores = {path: oid for path, oid in entries.items() if path.startswith(STORES)}
    rest = {path: oid for path, oid in entries.items() if not path.startswith(STORES)}
    assert_closure(repo, rest, stores)


def assert_history(repo: Repo, revisions: str = "HEAD") -> None:
    """Assert :func:`assert_commit` of every commit that ``revisions`` reaches."""
    for revision in repo.git("rev-list", revisions).split():
        assert_commit(repo, revision)


def assert_closure(repo: Repo, files: Mapping[str, str], stores: Mapping[str, str]) -> None:
    """Assert that ``stores`` (path -> id) holds what the manifests among ``files`` name: no less, no more."""
    wanted: dict[tuple[str, str], Files] = {}
    for path, manifest in manifests(repo, files).items():
        trees = [("@skeleton", manifest.skeleton), *((f"t {name}", tree) for name, tree in manifest.tensors)]
        for name, tree in trees:
            found = wanted.setdefault((manifest.store, name), files_of(repo, tree))
            assert found == files_of(repo, tree), f"{path}: store {manifest.store} is another checkpoint's"
    groups: dict[str, set[tuple[str, str]]] = {}
    for path, oid in stores.items():
        directory, _, name = path.rpartition("/")
        groups.setdefault(directory, set()).add((name, oid))
    held = Counter((directory.split("/")[1], frozenset(group)) for directory, group in groups.items())
    named = Counter((store, group) for (store, _), group in wanted.items())
    assert not named - held, f".theta/ lacks {named - held}"
    assert not held - named, f".theta/ has too much: {held - named}"


def assert_worktree(repo: Repo, files: Mapping[str, str]) -> None:
    """Assert that nothing of ``.theta/`` and no manifest is in the worktree, and what ``files`` are."""
    assert not (repo.path / STORES).exists(), sorted((repo.path / STORES).rglob("*"))
    for entry in index_entries(repo):
        path = repo.path / entry.path
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                assert file.read(len(MAGIC)) != MAGIC.encode(), f"{entry.path} is a manifest in the worktree"
    found = {path: sha256(repo.path / path) for path in files}
    assert found == dict(files)


def index_entries(repo: Repo) -> list[Entry]:
    """All index entries, of all stages."""
    found = []
    for row in filter(None, _listed(repo).split("\0")):
        head, _, path = row.partition("\t")
        tag, _, oid, stage = head.split(" ")
        found.append(Entry(tag, oid, int(stage), path))
    return found


def _listed(repo: Repo) -> str:
    index = repo.path / ".git" / "index"
    content = index.read_bytes() if index.is_file() else b""
    if content in _indexes:
        repo.ticks += 1  # the clock goes on as if git had run
        return _indexes[content]
    listed = repo.git("ls-files", "-s", "-t", "-z", "--full-name", ":/")
    if content:
        _indexes[content] = listed
    return listed


def manifests(repo: Repo, files: Mapping[str, str]) -> dict[str, Manifest]:
    """The manifests among ``files`` (path -> blob id); every tracked file must be one."""
    if not files:
        return {}
    listing = "".join(f"{path}\0" for path in files)
    fields = repo.git("check-attr", "-z", "--stdin", "filter", stdin=listing).split("\0")
    found = {}
    for path, value in zip(fields[0::3], fields[2::3], strict=False):
        if value == "theta":
            found[path] = read_manifest(_text_of(repo, files[path]), path)
    return found


def _text_of(repo: Repo, oid: str) -> str:
    if oid in _texts:
        repo.ticks += 1  # the clock goes on as if git had run
    else:
        _texts[oid] = repo.git("cat-file", "blob", oid)
    return _texts[oid]


def read_manifest(text: str, path: str) -> Manifest:
    """Parse a manifest."""
    lines = text.split("\n")
    assert lines[0] == MAGIC + "1", f"{path} is no manifest: {text[:200]!r}"
    head = dict(line.split(" ", 1) for line in lines[1:4])
    names, values, ends = lines[4::3], lines[5::3], lines[6::3]
    assert ends == [f"end {name}" for name in names], path
    assert len(set(names)) == len(names), path
    pattern = re.compile(r"    [a-z0-9_]+ \[[0-9, ]*\] sha256:[0-9a-f]{64} ([0-9a-f]{40}|[0-9a-f]{64})")
    found = [pattern.fullmatch(value) for value in values]
    assert all(found), path
    trees = [match[1] for match in found if match]
    return Manifest(head["store"], head["skeleton"], tuple(zip(names, trees, strict=True)))


def files_of(repo: Repo, tree: str) -> Files:
    """The (name, id) of each file of a tensor's tree."""
    if tree not in _trees:
        rows: Iterable[str] = filter(None, repo.git("ls-tree", "-z", tree).split("\0"))
        pairs = (row.partition("\t") for row in rows)
        _trees[tree] = frozenset((name, head.split(" ")[2]) for head, _, name in pairs)
    return _trees[tree]


def git_status(repo: Repo) -> list[str]:
    """The rows of ``git status``, without ``.theta/``."""
    done = repo.try_git("status", "--porcelain")
    assert done.returncode == 0, describe(done)
    return sorted(row for row in done.stdout.splitlines() if not row[3:].lstrip('"').startswith(STORES))


def theta_status(repo: Repo) -> list[str]:
    """The rows of ``theta status --porcelain``."""
    return sorted(repo.theta("status", "--porcelain").stdout.splitlines())
