"""Rebase, cherry-pick and revert: git applies commits, theta settles stops that only checkpoints made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from theta.porcelain.commands import decision, settling
from theta.porcelain.commands.decision import Decision
from theta.porcelain.commands.dialogue import NOBODY, Dialogue
from theta.porcelain.commands.merge_request import Settlement, TensorOptions
from theta.porcelain.drive import incoming, overwrites, rebasing, running, sequencing
from theta.porcelain.drive.git_words import Applying
from theta.porcelain.drive.running import Said
from theta.porcelain.look.version_changes import Summary, summarize
from theta.porcelain.merge import in_memory, resolving
from theta.porcelain.workspace import agreement
from theta.porcelain.workspace.session import Session


@dataclass(frozen=True)
class SequenceRequest:
    """Commits that are to be applied.

    Attributes:
        name: ``rebase``, ``cherry-pick`` or ``revert``.
        words: the arguments after the name.
        tensors: how tensors in conflict are settled.
    """

    name: str
    words: Sequence[str]
    tensors: TensorOptions = field(default_factory=TensorOptions)

    def has(self, *words: str) -> bool:
        """Return whether one of ``words`` was given."""
        return bool({*words} & {*self.words})


@dataclass(frozen=True)
class SequenceResult:
    """The result of a sequence.

    Attributes:
        code: the exit code of git where it stopped or ended.
        before: the commit that HEAD named before; None on an unborn branch.
        after: the commit that HEAD names now.
        settlement: what was settled at the last stop, and what is left in conflict.
        concluded: lines on a rebase that was killed, and that was concluded or given up.
        empty: a revert came to nothing.
        one_by_one: git stops at each commit, since it is to commit nothing.
        commits: what the new commits of a pick or a revert hold, the first one first.
        said: what git printed, without what theta tells itself.
        full: git failed, and no space is left on the disk of the repository.
        notes: warnings of theta.
    """

    code: int
    before: str | None
    after: str | None
    settlement: Settlement = field(default_factory=Settlement)
    concluded: Sequence[str] = ()
    empty: bool = False
    one_by_one: bool = False
    commits: Sequence[Summary] = ()
    said: Said = field(default_factory=Said)
    full: bool = False
    notes: Sequence[str] = ()


def sequence(session: Session, request: SequenceRequest, dialogue: Dialogue = NOBODY) -> SequenceResult:
    """Run ``git NAME WORDS``, settle checkpoints wherever it stops, and let it go on.

    The lock is held while theta works, not while git does: a rebase may run commands of the user.
    """
    decision.check_step_rules(session, request.tensors, [request.name, *request.words])
    decided = decision.decide(session, request.tensors, dialogue)
    return _Sequence(session, request, dialogue, decided).run()


class _Sequence:
    """One run of a sequence, from stop to stop."""

    def __init__(
        self, session: Session, request: SequenceRequest, dialogue: Dialogue, decided: Decision
    ) -> None:
        self._session, self._request = session, request
        self._dialogue, self._decision = dialogue, decided
        head = session.repo.head()
        self._result = SequenceResult(0, head, head)
        self._words = Applying(self._told, self._warned, dialogue.passing)

    def run(self) -> SequenceResult:
        """Go from stop to stop; return what became of it."""
        session, request = self._session, self._request
        with session.change():
            agreement.before_git(session)
            if request.has("--abort", "--skip"):
                session.repo.refresh_index()
                if request.name == "rebase":
                    rebasing.clear(session)
            if request.has("--continue") and self._is_over():
                return self._now()
            checked = overwrites.options(session.again(), [request.name, *request.words])
            begins = not request.has("--continue", "--skip", *sequencing.ENDS)
            if begins and not session.repo.has_unmerged():
                self._check_tokens()
        gits = self._decision.gits if begins else []
        with session.journal.driving():
            session.journal.moving(*request.words)
            self._git(session, {}, *checked, request.name, *gits, *request.words)
        goes_on = not request.has(*sequencing.ENDS)
        while goes_on and self._result.code:
            goes_on = self._past_stop()
        self._words.release(self._session.again().index.stages)
        self._agree()
        return self._now()

    def _check_tokens(self) -> None:
        """Refuse to start where tokens have other ids, and a file that names them could not follow."""
        fresh, how = self._session.again(), self._decision.how
        if not any(how.at(path).options.by_token is not None for path in in_memory.with_words(fresh)):
            return
        for one in incoming.applied(fresh.repo, [self._request.name, *self._request.words]):
            in_memory.check_changes(fresh, one.onto, one.changes, how)

    def _is_over(self) -> bool:
        """Conclude what was killed and settle what is in conflict, before git goes on."""
        if self._request.name == "rebase" and (lines := rebasing.repair(self._session)) is not None:
            lines += agreement.settle(self._session.again())
            self._result = replace(self._result, concluded=tuple(lines))
            return True
        if self._settle(self._session, whole=True):
            return False
        self._result = replace(self._result, code=1)
        return True

    def _past_stop(self) -> bool:
        """Settle a stop and let git go on; return whether it may have stopped again."""
        name, fresh = self._request.name, self._session.again()
        if not resolving.is_stopped(fresh):
            return False
        with fresh.change():
            if self._decision.side:
                sequencing.favour(fresh, self._decision.side)
            if not self._settle(fresh):
                return False
        self._words.forget()
        if not sequencing.is_under_way(fresh, name):
            self._result = replace(self._result, code=0)
            return False
        if name == "revert" and sequencing.drop_empty(fresh):
            self._result = replace(self._result, empty=True)
            return False
        if self._request.has("-n", "--no-commit"):
            self._result = replace(self._result, one_by_one=True)
            return False
        editor = sequencing.quiet_editor(fresh, name, [*self._request.words])
        checked = overwrites.options(fresh, [name, "--continue"])
        with fresh.journal.driving():
            fresh.journal.moving(*self._request.words)
            self._git(fresh, editor, *checked, name, "--continue")
        return True

    def _settle(self, session: Session, *, whole: bool = False) -> bool:
        """Settle the checkpoints in conflict; return whether nothing is in conflict any more."""
        found = settling.settle_stop(session, self._decision, self._dialogue, whole=whole)
        self._result = replace(self._result, settlement=found)
        return not found.unmerged

    def _git(self, session: Session, extra: Mapping[str, str], *words: str) -> None:
        """Let git work until it stops or ends."""
        git = sequencing.git(session, self._request.name, extra)
        code = running.overhear(git, *words, words=self._words, aloud=self._dialogue.aloud)
        ended = running.ended(session, code)
        notes = (*self._result.notes, *ended.notes)
        full = self._result.full or ended.full
        self._result = replace(self._result, code=code, full=full, notes=notes)

    def _told(self, line: str) -> None:
        self._heard(Said(out=(line,)))

    def _warned(self, line: str) -> None:
        self._heard(Said(err=(line,)))

    def _heard(self, new: Said) -> None:
        """Keep what git said, and pass it on."""
        old = self._result.said
        self._result = replace(self._result, said=Said((*old.out, *new.out), (*old.err, *new.err)))
        self._dialogue.heard(new)

    def _agree(self) -> None:
        """Mend what git committed, and bring everything into agreement."""
        fresh = self._session.again()
        with fresh.change(), self._dialogue.progress("writing checkpoints") as progress:
            notes = sequencing.finish(fresh, self._request.name, self._result.before)
            notes += agreement.settle(self._session.again(), progress)
        self._result = replace(self._result, notes=(*self._result.notes, *notes))

    def _now(self) -> SequenceResult:
        fresh = self._session.again()
        after = fresh.repo.head()
        made = sequencing.made(fresh, self._request.name, self._result.before)
        return replace(self._result, after=after, commits=[summarize(fresh, oid) for oid in made])
