"""Pushing: by git, in parts where a push is too large for the host, and never what a host cannot hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Final

from theta.errors import ThetaError
from theta.git import remotes
from theta.git.options import Arguments, Option
from theta.git.quoting import split_lines
from theta.git.run import Git, GitFailedError
from theta.porcelain.drive import running
from theta.porcelain.drive.running import Driven
from theta.porcelain.setup import installing
from theta.porcelain.share import hosts, outgoing, parts
from theta.porcelain.share.hosts import Host
from theta.porcelain.share.outgoing import Outgoing
from theta.porcelain.share.parts import Sent
from theta.porcelain.workspace.session import Session
from theta.units import human

LIMIT: Final = "theta.pushLimit"
"""The setting of the most bytes that one push may have."""
HOLDS: Final = "theta.hostLimit"
"""The setting of the most bytes that a remote repository may have."""
_OWN: Final = ("--dry-run", "--porcelain", "--quiet", "--verbose", "--progress", "--no-verify", "--verify")
_GRAFTS: Final = ("-c", "advice.graftFileDeprecated=false", "-c", "pack.useSparse=false")
_SENT: Final = (" ", "+", "*")
"""The flags of git for refs that are pushed: moved, forced, new."""

Tell = Callable[[str], None]


class HostLimitError(ThetaError):
    """The host cannot hold what would be pushed to it."""


@dataclass(frozen=True)
class PushRequest:
    """A push: the arguments of git push as git reads them, and the directory to run it in."""

    line: Arguments
    cwd: Path

    @classmethod
    def of(cls, cwd: Path, *words: str, dry_run: bool = False) -> PushRequest:
        """Request a push of ``words``: a remote and refspecs."""
        options = (Option("--dry-run"),) if dry_run else ()
        return cls(Arguments((), True, options, words).without(()), cwd)

    @property
    def is_rehearsal(self) -> bool:
        """Whether nothing is to be sent."""
        return self.line.known and self.line.has("--dry-run")


@dataclass(frozen=True)
class PushPlan:
    """The bytes and parts of a push.

    Attributes:
        remote: the name or URL of the remote.
        tips: the commits and tags that are pushed.
        host: the host, if its limits are known.
        limit: the most bytes of one push.
        load: the objects to send.
        sent: the parts that are there already.
        there: ref -> object of the remote.
        total: the bytes that the remote needs for these commits, sent before or now.
        most: the bytes that the remote can hold; None when nothing is known of it.
    """

    remote: str
    tips: tuple[str, ...]
    host: Host | None
    limit: int
    load: Outgoing
    sent: Sent
    there: dict[str, str] = field(default_factory=dict)
    total: int = 0
    most: int | None = None

    @cached_property
    def groups(self) -> list[list[str]]:
        """The files of each part; the last part goes with the commits."""
        if not self.sent.ref and self.load.size <= self.limit:
            return [list(self.load.blobs)]
        return parts.cut(self.load.blobs, self.limit) or [[]]

    def check(self) -> None:
        """Raise :class:`HostLimitError` if the remote cannot hold the commits."""
        if self.most is not None and self.total > self.most:
            name = self.host.name if self.host else self.remote
            source = f"see {self.host.source}; " if self.host else ""
            raise HostLimitError(
                f"{name} holds at most {human(self.most)} in a repository, and these commits take "
                f"{human(self.total)}; nothing was sent",
                hint=f"{source}'git config {HOLDS} BYTES' sets another limit",
            )

    def as_json(self) -> dict[str, object]:
        """Return the plan as plain data; sizes are bytes."""
        advised = self.host.advised if self.host else None
        numbers = {"bytes": self.load.size, "parts": len(self.groups), "limit": self.limit}
        room = {"total": self.total, "most": self.most, "advised": advised, "there": len(self.sent.blobs)}
        return {"remote": self.remote, "host": self.host.name if self.host else None, **numbers, **room}

    def told(self) -> list[str]:
        """Return the lines that tell of the plan."""
        name = self.host.name if self.host else self.remote
        count = len(self.groups)
        how = f"in {count} parts of at most {human(self.limit)}" if count > 1 else "in one part"
        lines = [f"{human(self.load.size)} to send to {name}, {how}"]
        lines += [f"{len(self.sent.blobs)} files of it are there already"] if self.sent.ref else []
        advised = self.host.advised if self.host else None
        if advised is not None and self.total > advised:
            lines.append(f"{name} advises at most {human(advised)} a repository; this is {human(self.total)}")
        return lines


@dataclass(frozen=True)
class PushResult:
    """The result of a push.

    Attributes:
        done: how git ended.
        plan: the bytes and parts, where they were asked for or needed.
    """

    done: Driven
    plan: PushPlan | None = None


def push(
    session: Session, request: PushRequest, *, aloud: bool = False, tell: Tell = lambda _: None
) -> PushResult:
    """Push what ``request`` names; raises :class:`HostLimitError` before anything is sent."""
    work = _Push(session, request, aloud, tell)
    plan = work.plan()
    if plan is None:
        return PushResult(work.whole())
    plan.check()
    if request.is_rehearsal or (len(plan.groups) == 1 and not plan.sent.ref and not plan.load.missing):
        return PushResult(work.whole(), plan)
    return PushResult(work.in_parts(plan), plan)


@dataclass(frozen=True)
class _Push:
    """One push, and its runs of git."""

    session: Session
    request: PushRequest
    aloud: bool
    tell: Tell

    @property
    def _git(self) -> Git:
        return self.session.repo.git(extra={}).in_directory(self.request.cwd)

    @cached_property
    def _settings(self) -> list[str]:
        return remotes.durable(self.session.repo)

    @cached_property
    def _quiet(self) -> list[str]:
        return [word for word in ("--quiet", "--progress") if self.request.line.has(word)]

    @cached_property
    def _thin(self) -> list[str]:
        """The option with which git looks for no base of a delta, which a lazy clone would have to fetch."""
        return ["--no-thin"] if self.session.repo.promised.is_partial else []

    def whole(self) -> Driven:
        """Let git push as it was asked to."""
        return self._run(self._git, *self._settings, "push", *self._thin, *self.request.line.given)

    def _run(self, git: Git, *words: str) -> Driven:
        with self.session.journal.driving():
            done = running.run(git, *words, aloud=self.aloud)
            return replace(running.ended(self.session, done.code), said=done.said)

    def plan(self) -> PushPlan | None:
        """Return the plan; None for a push that git can do at once, or will refuse."""
        line, repo = self.request.line, self.session.repo
        if not line.known or not installing.is_used(repo):
            return None
        remote = line.operands[0] if line.operands else remotes.default(repo)
        urls = remotes.push_urls(repo, remote) if remote else []
        if remote is None or len(urls) != 1:
            return None
        host = hosts.of_url(urls[0])
        limit = self._number(LIMIT) or (host.push if host else None) or hosts.DEFAULT
        if not (self.request.is_rehearsal or repo.promised.is_partial or _stored(self.session) > limit):
            return None
        try:
            tips = self._tips()
            return self._planned(remote, tips, host, limit) if tips else None
        except GitFailedError:
            return None  # the push itself says why

    def _number(self, key: str) -> int | None:
        text = self.session.repo.git().run("config", "--type=int", "--get", key, check=False).text.strip()
        return int(text) if text else None

    def _tips(self, *hooks: str) -> tuple[str, ...]:
        """Return the commits and tags that git would push; raises :class:`GitFailedError` if it refuses."""
        given = self.request.line.without(_OWN).given
        words = ("push", "--dry-run", "--porcelain", *(hooks or ("--no-verify",)), *given)
        rows = (row.split("\t") for row in split_lines(self._git.run(*words).text))
        named = (row[1].partition(":")[0] for row in rows if len(row) == 3 and row[0] in _SENT)
        return tuple(dict.fromkeys(self.session.repo.resolve(name) for name in named if name))

    def _planned(self, remote: str, tips: tuple[str, ...], host: Host | None, limit: int) -> PushPlan:
        there = outgoing.remote_commits(self.session, remote)
        sent = parts.sent(self.session, there)
        load = outgoing.outgoing(self.session, tips, there.values()).without(sent.blobs)
        most = self._number(HOLDS) or (host.holds if host else None)
        known = most is not None or host is not None
        total = outgoing.total(self.session, tips) if known else load.size
        return PushPlan(remote, tips, host, limit, load, sent, there, total, most)

    def in_parts(self, plan: PushPlan) -> Driven:
        """Send the files ahead of the commits, then the commits, for which git sends what is left."""
        try:
            self._tips("--verify")
        except GitFailedError:  # a hook refuses, before anything is sent, and says why
            return self.whole()
        last, total = plan.sent.last, len(plan.groups)
        ref = plan.sent.ref or f"{parts.REFS}{plan.tips[0][:16]}"
        waiting = parts.commits(self.session, plan.sent, plan.groups[:-1])
        for number, commit in enumerate(waiting, 1):
            self.tell(f"part {number} of {total}")
            words = ("push", "--no-verify", *self._quiet, plan.remote, f"{commit}:{ref}")
            if (done := self._run(self._git, *self._settings, *words)).code:
                return done
            last = commit
        done = self._last(plan, [last] if last else [])
        if last and not done.code:
            self._git.run("push", "--no-verify", "--quiet", plan.remote, f":{ref}", check=False)
        return done

    def _last(self, plan: PushPlan, parents: Sequence[str]) -> Driven:
        if plan.load.missing:  # the remote sends these to this lazy clone, so it has them
            parents = [*parents, *outgoing.ancestors(self.session, plan.there.values())]
        with parts.grafted(self.session, plan.tips, parents) as more:
            git = self.session.repo.git(extra=more).in_directory(self.request.cwd)
            given = self.request.line.without(("--verify", "--no-verify")).given
            return self._run(git, *self._settings, *_GRAFTS, "push", "--no-verify", *self._thin, *given)


def _stored(session: Session) -> int:
    """Return the bytes of the packs here."""
    return sum(place.stat().st_size for place in session.objects.directory.glob("*.pack"))
