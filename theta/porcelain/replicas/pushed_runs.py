"""A training run on a remote: pushed after each step, and never over steps that are not here.

Retention makes commits of a run anew, so that a push is no fast-forward.  What it may replace is what this
clone pushed last, or steps that are here too: a step is known by its number and its tree.
"""

from __future__ import annotations

import hashlib
import json
import os
from enum import Enum
from pathlib import Path
from typing import Any, Final

from theta import _notes
from theta.errors import RefusedError, UsageError, did_you_mean
from theta.git.quoting import shell_word, split_lines
from theta.git.run import PATIENT, GitFailedError
from theta.porcelain.stage import run_steps
from theta.porcelain.workspace.session import Session

_NOTED: Final = 3
_MOST_SAID: Final = 600
_FETCH: Final = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--refmap=")
"""Fetches objects alone: without a map of refs git moves none, whatever is configured for the remote."""


class _Side(Enum):
    """The side that has all steps of the other one."""

    HERE = "here"
    THERE = "there"
    NEITHER = "neither"


class PushedRun:
    """Run ``name`` on ``remote``, the name of a remote, a URL or a path."""

    def __init__(self, name: str, remote: str) -> None:
        if type(remote) is not str or not remote.strip() or remote.startswith("-"):
            raise UsageError(f"a run cannot be pushed to {remote!r}", hint='push="origin"')
        self._name, self._remote, self._ref = name, remote, run_steps.ref_of(name)
        self._there: str | None = None
        self._is_known = False

    def check(self, session: Session) -> None:
        """Raise :class:`UsageError` if git would know no such remote."""
        known = session.repo.refs.remotes()
        if self._remote not in known and os.path.isdir(self._remote):
            self._remote = os.path.abspath(self._remote)  # git looks from the root of the worktree
        if self._remote not in known and not any(mark in self._remote for mark in "/:\\"):
            hint = did_you_mean(self._remote, known) or "'git remote add' makes one"
            raise UsageError(f"there is no remote {self._remote}", hint=hint)

    def bring(self, session: Session) -> None:
        """Fetch the steps that the remote has besides those here.

        Raises :class:`RefusedError` when each side has steps that the other one lacks.
        """
        there, tip = self._look(session), self._tip(session)
        if there is None or there == tip:
            self._know(session, there)
            return
        if session.repo.commit_of(there) is None:
            self._git(session, *_FETCH, refspec=self._ref)
            session = session.again()
        if tip is None or self._is_all_there(session, tip, there):
            with session.change() as change:
                change.move(self._ref, there, tip or "", f"resume: from {self._remote}")
            self._know(session, there)
        else:
            self._accept(session, there)

    def push(self, session: Session) -> None:
        """Push the run.

        Raises:
            RefusedError: the remote has steps that are not here.
            GitFailedError: the remote cannot be reached, or takes no push.
        """
        if not self._is_known:
            self._accept(session, self._look(session))
        for is_last in (False, True):
            # Read behind what was seen there: several processes push one run, and none may go back.
            tip = self._tip(session)
            if tip is None or tip == self._there:
                return
            try:
                self._replace(session, tip)
                self._know(session, tip)
                return
            except GitFailedError:
                there = self._look(session)
                if is_last or there == self._there:
                    raise
                self._accept(session, there)

    def _replace(self, session: Session, tip: str) -> None:
        """Push ``tip``, unless the remote has something else than was seen there."""
        lease = f"--force-with-lease={self._ref}:{self._there or ''}"
        self._git(session, "push", "--quiet", lease, refspec=f"{tip}:{self._ref}")

    def _accept(self, session: Session, there: str | None) -> None:
        """Take ``there`` for what a push may replace; raises :class:`RefusedError` if it may not."""
        if there is not None and there != self._noted(session)[0]:
            tip = self._tip(session)
            if session.repo.commit_of(there) is None:
                self._git(session, *_FETCH, refspec=self._ref)
                session = session.again()
            if tip is None or _side(session, tip, there) is not _Side.HERE:
                self._is_known = False
                raise self._refused()
        self._know(session, there)

    def _is_all_there(self, session: Session, tip: str, there: str) -> bool:
        """Return whether the remote has the last step here, or had it, and others went on from it."""
        number, tree = _key(session, tip)
        newest, _ = _key(session, there)
        was_there = self._noted(session)[1:] == [number, tree]
        goes_on = was_there and number is not None and newest is not None and newest > number
        return goes_on or _side(session, tip, there) is _Side.THERE

    def forget(self) -> None:
        """Forget what the remote had, for the push of a run that begins anew here: :func:`begun`."""
        self._is_known = False

    def _look(self, session: Session) -> str | None:
        rows = split_lines(self._git(session, "ls-remote", refspec=self._ref))
        found = {name: oid for oid, _, name in (row.partition("\t") for row in rows)}
        return found.get(self._ref)

    def _tip(self, session: Session) -> str | None:
        refs = session.again().repo.refs
        return refs.resolved(self._ref) if self._ref in refs else None

    def _know(self, session: Session, there: str | None) -> None:
        """Remember what the remote has, in this process and for those to come."""
        self._there, self._is_known = there, True
        session = session.again()
        if there is None:
            _notes.drop(self._note(session))
        elif there != self._noted(session)[0]:
            _notes.write(self._note(session), json.dumps({"last": [there, *_key(session, there)]}))

    def _noted(self, session: Session) -> list[Any]:
        """Return the commit that the remote had last, its number and tree; Nones if nothing is known."""
        found = _notes.read_json(self._note(session)).get("last")
        return found if isinstance(found, list) and len(found) == _NOTED else [None] * _NOTED

    def _note(self, session: Session) -> Path:
        return _notes_of(session, self._ref) / _digest(self._remote)

    def _git(self, session: Session, command: str, *options: str, refspec: str) -> str:
        git = session.repo.git()
        return git.run(*PATIENT, command, *options, "--", self._remote, refspec).text

    def _refused(self) -> RefusedError:
        refspec = shell_word(f"+{self._ref}:{self._ref}")
        fetch = f"theta fetch {shell_word(self._remote)} {refspec}"
        return RefusedError(
            f"{self._remote} has steps of run {self._name} that are not here, and lacks some that are",
            hint=f"a run of another name keeps both; '{fetch}' takes those in place of the steps here",
        )


def begun(session: Session, name: str) -> None:
    """Forget what remotes had of run ``name``, which begins anew here, and may not replace the one there."""
    place = _notes_of(session, run_steps.ref_of(name))
    if place.exists():
        _notes.drop(place)


def _notes_of(session: Session, ref: str) -> Path:
    return session.repo.shared / "pushed" / _digest(ref)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def reason(error: GitFailedError) -> str:
    """Return what git says of a push that failed, and what the remote said, on one line."""
    rows = split_lines(error.stderr)
    told = [row.removeprefix("remote: ").strip() for row in rows if row.startswith(("remote: ", " ! ["))]
    return "; ".join([str(error), *filter(None, told)])[:_MOST_SAID]


def _side(session: Session, here: str, there: str) -> _Side:
    """Return the side that has the last step of the other one."""
    ours, theirs = _known(session, here), _known(session, there)
    if theirs[-1] in ours:
        return _Side.HERE
    return _Side.THERE if ours[-1] in theirs else _Side.NEITHER


def _known(session: Session, commit: str) -> list[tuple[int | None, str]]:
    """Return the number and the tree of each step up to ``commit``, the first one first."""
    return [_key(session, oid) for oid in reversed(run_steps.line(session, commit))]


def _key(session: Session, commit: str) -> tuple[int | None, str]:
    """Return what stays of a step when retention makes its commit anew."""
    return run_steps.step_of(session, commit).step, session.repo.commit(commit).tree
