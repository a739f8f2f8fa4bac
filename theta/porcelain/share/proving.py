"""The proof that a remote has each of some objects in a store of its own.

A remote on this disk is looked at: its objects are listed, and it must not read those of another repository,
this one above all.  Of any other remote all objects are fetched, some at a time, and git hashes each.  An
object that is made for the purpose, and is nowhere else, shows a remote that reads the objects here.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from theta import _fs
from theta.errors import MissingObjectsError
from theta.git import remotes
from theta.git.object_format import BLOB
from theta.git.run import GitFailedError
from theta.porcelain.share import parts
from theta.porcelain.workspace.session import Session
from theta.progress import Progress, begin

_SAMPLE: Final = 16
"""The number of objects that are fetched to see whether the remote sends them."""
_BATCH: Final = 256 << 20
"""Bytes that are fetched, hashed and removed at a time."""
_ENDS: Final = ("/.git", "", ".git/.git", ".git")
"""Ends that git adds to the path of a remote to find its repository, in git's order."""
_LAZY: Final = r"^(remote\..*\.(promisor|partialclonefilter)|extensions\.partialclone)$"
_SETTINGS: Final = ("fetch.negotiationAlgorithm=noop",)


@dataclass
class Proof:
    """Objects (id -> bytes) that ``remote`` is to have.

    ``sample``: some of those of a remote elsewhere stand for all.
    """

    session: Session
    remote: str
    objects: Mapping[str, int]
    sample: bool = False

    @cached_property
    def place(self) -> Path | None:
        """The git directory of a remote on this disk; None for any other."""
        repo, git = self.session.repo, self.session.repo.git()
        if any(f"remote.{self.remote}.{key}" in repo.config for key in ("uploadpack", "vcs")):
            return None
        path = _path(git.run("ls-remote", "--get-url", "--", self.remote).text.rstrip("\n"))
        words = ("rev-parse", "--path-format=absolute", "--git-common-dir")
        for end in _ENDS if path else ():
            done = git.run(f"--git-dir={git.cwd / path}{end}", *words, check=False)
            if not done.code:
                return Path(done.text.rstrip("\n"))
        return None

    def look(self) -> None:
        """Raise :class:`MissingObjectsError` unless a remote on this disk has all objects of its own."""
        if self.place is not None:
            self.refuse_bound()
            self._count(self.place, self.objects)

    def refuse_bound(self) -> None:
        """Raise :class:`MissingObjectsError` if a remote on this disk gets objects from elsewhere."""
        if self.place is not None and (why := _bound(self.session, self.place)):
            raise self._refusal(why)

    def fetch(self, progress: Progress | None = None) -> None:
        """Raise :class:`MissingObjectsError` unless the remote sends the objects, and has them of its own."""
        some = sorted(self.objects)[:: max(len(self.objects) // _SAMPLE, 1)]
        self._fetch(some[:1])
        self._refuse_ours()
        asked = some if self.sample or self.place is not None else list(self.objects)
        batches = parts.cut({oid: self.objects[oid] for oid in asked}, _BATCH)
        begin(progress, "proving", sum(self.objects[oid] for oid in asked), self.remote)
        for batch in batches:
            self._fetch(batch)
            if progress is not None:
                progress(sum(self.objects[oid] for oid in batch))

    def _refuse_ours(self) -> None:
        """Raise :class:`MissingObjectsError` if the remote sends an object that is only here."""
        repo = self.session.repo
        oid = repo.git().run("hash-object", "-w", "--stdin", stdin=secrets.token_bytes(32)).text.strip()
        try:
            self._fetch([oid])
        except MissingObjectsError:
            return
        finally:
            _fs.remove(self.session.objects.directory.parent / oid[:2] / oid[2:])
        raise self._refusal("reads the objects of this repository")

    def _fetch(self, oids: list[str]) -> None:
        """Fetch objects into a repository that is removed again."""
        repo = self.session.repo
        with _fs.temporary_directory(_fs.own_temporary("prove"), self.session.scratch()) as place:
            words = ("--filter=blob:none", "--stdin", "--", self.remote)
            asked = "".join(f"{oid}\n" for oid in oids).encode()
            try:
                remotes.fetch_apart(repo, place, _SETTINGS, words, asked)
            except GitFailedError as error:
                raise MissingObjectsError(
                    f"{self.remote} does not send objects by their ids ({error}); nothing was dropped",
                    hint="it lacks them, or needs uploadpack.allowFilter and uploadpack.allowAnySHA1InWant",
                ) from error
            self._count(place, oids)

    def _count(self, place: Path, oids: Iterable[str]) -> None:
        """Raise :class:`MissingObjectsError` unless the store at ``place`` itself has all of ``oids``."""
        asked = list(oids)
        words = (f"--git-dir={place}", "cat-file", "--batch-check=%(objecttype)", "--buffer")
        git = remotes.standing_alone(self.session.repo, place)
        rows = git.run(*words, stdin="".join(f"{oid}\n" for oid in asked).encode()).text.split("\n")
        if lacking := len(asked) - rows.count(BLOB):
            raise self._refusal(f"lacks {lacking} of {len(asked)} objects")

    def _refusal(self, why: str) -> MissingObjectsError:
        return MissingObjectsError(
            f"{self.remote} {why}; nothing was dropped",
            hint="a remote that is to stand for the objects here needs a whole store of its own",
        )


def _path(url: str) -> str:
    """Return the path of a URL of this disk; "" for any other (connect.c and transport.c of git)."""
    if url.startswith("file:///"):
        return unquote(url.removeprefix("file://"), errors="surrogateescape")
    head, colon, _ = url.partition(":")
    return url if not colon or "/" in head else ""


def _bound(session: Session, place: Path) -> str:
    """Return why the store of the repository at ``place`` does not stand alone; "" when it does."""
    ours, theirs = session.objects.directory.parent, place / "objects"
    pairs = ((session.repo.commondir, place), (ours, theirs), (ours / "pack", theirs / "pack"))
    if any(_is_same(one, other) for one, other in pairs):
        return "is this repository"
    if _has_text(theirs / "info" / "alternates"):
        return "borrows objects of another repository (objects/info/alternates)"
    if _has_text(place / "shallow"):
        return "is shallow"
    lazy = session.repo.git().run(f"--git-dir={place}", "config", "--get-regexp", _LAZY, check=False)
    return "is lazy, or was pruned" if not lazy.code or any(theirs.glob("pack/*.promisor")) else ""


def _is_same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except FileNotFoundError:
        return False


def _has_text(file: Path) -> bool:
    with _fs.translated(file):
        return file.exists() and bool(file.read_bytes().strip())
