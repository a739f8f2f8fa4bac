"""A repository that git itself reads and writes: of SHA-256, or with a reftable, which libgit2 cannot open.

Each call starts a process, except that one process reads all objects.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from theta.errors import DamagedRepositoryError, MissingObjectsError
from theta.git import state_files
from theta.git.backends import git_settings, loose_and_packed
from theta.git.backends.by_git_index import GitIndexes
from theta.git.backends.git_settings import GitConfig, GitSettings
from theta.git.object_format import ObjectFormat, is_id
from theta.git.object_values import DAMAGED
from theta.git.quoting import split_lines
from theta.git.run import Conversation, Git, Result

_IN_TABLES: Final = "refs/heads/.invalid"
"""The branch in the file HEAD where refs are in tables."""


class ByGit:
    """One repository, served by git."""

    def __init__(self, git: Git, gitdir: Path, top: Path | None, form: ObjectFormat) -> None:
        self.gitdir, self.top = gitdir, top
        self._git = git
        self.objects = GitObjects(git, form, _objects(git, gitdir))
        self._settings = GitSettings(git, gitdir)
        self.refs = GitRefs(git, gitdir, self._settings)
        self.history = GitHistory(git, self.objects, self.refs)
        self.indexes = GitIndexes(git)

    @property
    def config(self) -> GitConfig:
        """Git's configuration; it is read again when a file of the repository's own changed."""
        return self._settings.config

    @property
    def lasting_config(self) -> GitConfig:
        """Git's configuration without what holds for this command only."""
        return self._settings.lasting

    def apart(self, place: Path) -> ByGit:
        """Return the same repository with ``place`` as the objects directory for new objects."""
        objects = self._git.run("rev-parse", "--path-format=absolute", "--git-path", "objects").text.rstrip(
            "\n"
        )
        places = {"GIT_OBJECT_DIRECTORY": str(place), "GIT_ALTERNATE_OBJECT_DIRECTORIES": objects}
        git = replace(self._git, extra={**(self._git.extra or {}), **places})
        return ByGit(git, self.gitdir, self.top, self.objects.format)


def _objects(git: Git, gitdir: Path) -> list[Path]:
    """Return the directories of objects that git looks into."""
    given = git.environment()
    own = given.get("GIT_OBJECT_DIRECTORY") or state_files.common_directory(gitdir) / "objects"
    others = filter(None, given.get("GIT_ALTERNATE_OBJECT_DIRECTORIES", "").split(os.pathsep))
    return [place for one in (own, *others) for place in loose_and_packed.places(Path(one))]


def _text(place: Path) -> str:
    try:
        return place.read_text("utf-8", "surrogateescape").rstrip("\n")
    except OSError:
        return ""


def _head(place: Path) -> str:
    """Return the content of a HEAD; older gits make it a symbolic link to the file of the branch."""
    return f"ref: {os.readlink(place)}" if place.is_symlink() else _text(place)


class GitObjects:
    """The objects of the repository."""

    def __init__(self, git: Git, form: ObjectFormat, places: list[Path]) -> None:
        self._git, self.format = git, form
        self._here = loose_and_packed.ObjectFiles(places, form.size)
        self._reader: Conversation | None = None
        self._lock = threading.Lock()

    def has(self, oid: str) -> bool:
        """Return whether object ``oid`` is in this repository."""
        return self.header(oid) is not None

    def look_up(self) -> Callable[[str], bool]:
        """Return :meth:`has`."""
        return self.has

    def header(self, oid: str) -> tuple[str, int] | None:
        """Return the kind and the size of object ``oid``; None when it is not in this repository."""
        if not self.format.is_id(oid):
            return None
        with self._lock:
            return self._asked("info", oid) if self._may_ask(oid) else None

    def read(self, oid: str) -> tuple[str, bytes] | None:
        """Return the kind and the bytes of object ``oid``; None when it is not in this repository."""
        if not self.format.is_id(oid):
            return None
        with self._lock:
            if not self._may_ask(oid):
                return None
            found = self._asked("contents", oid)
            data = self._reader.read(found[1] + 1)[:-1] if found and self._reader else b""
        if found is None:
            self._require_sound(oid)
            return None
        if len(data) != found[1]:
            self._reader = None
            raise DamagedRepositoryError(f"object {oid} cannot be read", hint=DAMAGED)
        return found[0], data

    def _may_ask(self, oid: str) -> bool:
        """Return whether git would not fetch object ``oid``, alone, when it is asked for it."""
        if not self._here.is_partial or oid == self.format.empty_tree:
            return True
        return self._here.has(oid)

    def _require_sound(self, oid: str) -> None:
        """Raise :class:`DamagedRepositoryError` for an object that git calls missing over an error."""
        said = self._git.run("cat-file", "-t", oid, check=False).stderr.decode("utf-8", "replace")
        for line in split_lines(said):
            if line.startswith("error: "):
                raise DamagedRepositoryError(f"object {oid} cannot be read: {line[7:]}", hint=DAMAGED)

    def _asked(self, command: str, oid: str) -> tuple[str, int] | None:
        if self._reader is None:
            self._reader = self._git.conversation("cat-file", "--batch-command")
        words = self._reader.ask(f"{command} {oid}").decode().split()
        if len(words) == 3:
            return words[1], int(words[2])
        if words[1:] == ["missing"]:
            return None
        self._reader = None  # it ended over an object that it cannot read
        raise DamagedRepositoryError(f"object {oid} cannot be read", hint=DAMAGED)

    def write(self, kind: str, data: bytes) -> str:
        """Write an object; return its id."""
        return self._git.run("hash-object", "-w", "-t", kind, "--stdin", stdin=data).text.strip()


class GitRefs:
    """The refs by their full names."""

    def __init__(self, git: Git, gitdir: Path, settings: GitSettings) -> None:
        self._git, self._gitdir, self._settings = git, gitdir, settings
        self._shared = state_files.common_directory(gitdir)
        self._head: tuple[object, tuple[str, str | None]] | None = None

    def __iter__(self) -> Iterator[str]:
        return iter(split_lines(self._git.run("for-each-ref", "--format=%(refname)").text))

    def __contains__(self, name: str) -> bool:
        return not self._git.run("show-ref", "--verify", "--quiet", name, check=False).code

    def head(self) -> tuple[str, str | None]:
        """Return the ref that HEAD names ("" if detached) and its commit (None on an unborn branch).

        Git is asked again when a file that says it has changed.
        """
        seen = self._signs()
        if self._head is None or self._head[0] != seen:
            self._head = seen, self._asked()
        return self._head[1]

    def _signs(self) -> tuple[object, ...]:
        """Return the content of HEAD and of its ref, and the state of the files of all refs."""
        head = _head(self._gitdir / "HEAD")
        loose = _text(self._shared / head.removeprefix("ref: ")) if head.startswith("ref: ") else ""
        if loose.startswith("ref: "):
            return (object(),)  # a ref of a ref: always another
        tables = [_text(place / "reftable" / "tables.list") for place in (self._shared, self._gitdir)]
        return head, loose, state_files.signature(self._shared / "packed-refs"), tables

    def _asked(self) -> tuple[str, str | None]:
        done = self._git.run("rev-parse", "-q", "HEAD", "--symbolic-full-name", "HEAD", check=False)
        if done.code == 0:
            oid, name = done.text.split()
            return "" if name == "HEAD" else name, oid
        name = self._symbolic("HEAD")
        if name and not (self._shared / name).exists():  # a ref that is there and says nothing is damaged
            return name, None
        raise DamagedRepositoryError("HEAD cannot be read", hint=DAMAGED)

    def _symbolic(self, name: str) -> str:
        return self._git.run("symbolic-ref", "-q", name, check=False).text.strip()

    def target(self, name: str) -> str:
        """Return the target of the existing ref ``name``: an id, or a name for a symbolic ref."""
        return self._symbolic(name) or self._git.run("rev-parse", "--verify", name).text.strip()

    def resolved(self, name: str) -> str | None:
        """Return the id that ref ``name`` resolves to; None for a damaged ref or an unborn branch."""
        return self._git.run("rev-parse", "--verify", "-q", name, check=False).text.strip() or None

    def all_resolved(self) -> dict[str, str]:
        """Return name -> id of all refs that resolve."""
        rows = split_lines(self._git.run("for-each-ref", "--format=%(objectname) %(refname)").text)
        return {name: oid for oid, name in (row.split(" ", 1) for row in rows)}

    def direct(self, *prefixes: str) -> dict[str, str]:
        """Return name -> id of the refs with these prefixes that are not symbolic and resolve."""
        words = ("for-each-ref", "--format=%(objectname) %(refname) %(symref)", *prefixes)
        rows = (row.split(" ") for row in split_lines(self._git.run(*words).text))
        return {name: oid for oid, name, target in rows if not target}

    def is_valid(self, name: str) -> bool:
        """Return whether a ref can have the full name ``name``."""
        return not self._git.run("check-ref-format", name, check=False).code

    def checked_out(self) -> set[str]:
        """Return the refs that the HEADs of all worktrees name."""
        rows = split_lines(self._git.run("for-each-ref", "--format=%(refname) %(worktreepath)").text)
        is_bare = self._settings.config.flag("core.bare")
        own = self._symbolic("HEAD") if not is_bare else ""
        return {name for name, _, place in (row.partition(" ") for row in rows) if place} | {own} - {""}

    def used_elsewhere(self) -> set[str]:
        """Return the branches that other worktrees than this one have at HEAD, rebase or bisect.

        The file HEAD names no branch where refs are in tables.
        """
        is_bare = self._settings.config.flag("core.bare")
        found = state_files.used_elsewhere(self._gitdir, is_bare=is_bare) - {_IN_TABLES}
        for block in self._git.run("worktree", "list", "--porcelain", "-z").text.split("\0\0"):
            lines = dict(line.partition(" ")[::2] for line in block.split("\0"))
            if not self._is_here(lines.get("worktree", "")):
                found |= {lines.get("branch", "")}
        return found - {""}

    def _is_here(self, top: str) -> bool:
        """Return whether the worktree at ``top`` is that of this repository's git directory."""
        named = _text(Path(top) / ".git").removeprefix("gitdir: ")
        return os.path.realpath(Path(top) / (named or ".git")) == os.path.realpath(self._gitdir)

    def move(self, _name: str, _new: str, _old: str, _reason: str) -> bool:
        """Leave it to git."""
        return False

    def put(self, refs: Mapping[str, str]) -> None:
        """Set refs, by their names, to objects, whatever their old values."""
        lines = "".join(f"update {name} {oid}\n" for name, oid in refs.items())
        self._git.run("update-ref", "--stdin", stdin=lines.encode())

    def remove(self, name: str) -> None:
        """Remove ref ``name``."""
        self._git.run("update-ref", "-d", name)

    def log(self, name: str) -> list[str]:
        """Return the ids in the reflog of ``name``, newest first."""
        return self._git.run("reflog", "show", "--format=%H", name, "--").text.split()

    def remotes(self) -> list[str]:
        """Return the names of the remotes."""
        return git_settings.remotes(self._settings.config)


class GitHistory:
    """Revisions, and how commits descend from each other."""

    def __init__(self, git: Git, objects: GitObjects, refs: GitRefs) -> None:
        self._git, self._objects, self._refs = git, objects, refs
        self._bases: dict[tuple[str, str], str] = {}

    def named(self, revision: str) -> str | None:
        """Return the object that ``revision`` names; None when it names none in this repository."""
        if revision == "HEAD":
            revision = self._refs.head()[1] or ""
        if is_id(revision):
            return revision if self._objects.has(revision) else None
        asked = ("rev-parse", "--verify", "-q", "--end-of-options", revision)
        oid = self._git.run(*asked, check=False).text.strip()
        return oid if oid and self._objects.has(oid) else None

    def merge_base(self, one: str, other: str) -> str | None:
        """Return a merge base; None when there is none."""
        if (one, other) not in self._bases:
            base = _told(self._git.run("merge-base", one, other, check=False)).text.strip()
            if not base:
                return None
            self._bases[one, other] = base
        return self._bases[one, other]

    def descends(self, commit: str, ancestor: str) -> bool:
        """Return whether ``commit`` is a descendant of ``ancestor``."""
        asked = ("merge-base", "--is-ancestor", ancestor, commit)
        return not _told(self._git.run(*asked, check=False)).code and commit != ancestor

    def since(self, head: str, hidden: Iterable[str] = (), *, parents_first: bool = False) -> Iterator[str]:
        """Yield the commits that ``head`` reaches and none of ``hidden`` does."""
        order = ("--topo-order", "--reverse") if parents_first else ()
        rows = "".join(f"{row}\n" for row in (head, *(f"^{oid}" for oid in hidden)))
        done = self._git.run("rev-list", *order, "--stdin", stdin=rows.encode(), check=False)
        return iter(_told(done).text.split())


def _told(done: Result) -> Result:
    """Return ``done``; raises :class:`MissingObjectsError` if git failed (1 means no)."""
    if done.code not in (0, 1):
        said = done.stderr.decode("utf-8", "replace").strip().removeprefix("fatal: ")
        raise MissingObjectsError(f"a commit is not in this repository: {said}")
    return done
