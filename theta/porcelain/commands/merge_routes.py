"""The three routes of a merge, under the lock.

A merge of one branch that is clean and has no options happens in memory, and is then brought into the
worktree whole.  Any other merge of one branch is git's: it merges files and stops before the commit, and
theta settles the checkpoints that it left in the index.  Several branches are joined in memory.
The commit is git's in each of them, with its hooks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from theta.errors import ExitCode, ThetaError, UsageError
from theta.git.commit_graph import octopus_base
from theta.git.run import GitFailedError, Result
from theta.merging.recipes import Recipe
from theta.porcelain.commands import settling
from theta.porcelain.commands.decision import MergePlan, deciding
from theta.porcelain.commands.dialogue import Dialogue
from theta.porcelain.commands.merge_request import Ending, MergeResult, Settlement
from theta.porcelain.drive import git_words, running
from theta.porcelain.drive.running import Driven, Said
from theta.porcelain.look import version_changes
from theta.porcelain.merge import (
    answers,
    concluding,
    in_memory,
    made_texts,
    octopus,
    recording,
    resolving,
    trailers,
)
from theta.porcelain.merge.in_memory import Joined
from theta.porcelain.workspace import agreement, worktree
from theta.porcelain.workspace.exchange import Exchange
from theta.porcelain.workspace.session import Session

_NOISE: Final = ("Automatic merge", "Auto-merging", "Squash commit -- not updating HEAD", "Merge made by")

_STOPPED: Final = "stopped before committing"


@dataclass(frozen=True)
class Route:
    """One merge that is going to happen; ``checked`` are git's options that keep untracked files safe."""

    session: Session
    dialogue: Dialogue
    plan: MergePlan
    checked: Sequence[str] = ()

    def run(self) -> MergeResult:
        """Merge by the route that fits."""
        with worktree.dated_back(self.session):
            return self._merge()

    def _merge(self) -> MergeResult:
        if len(self.plan.heads) > 1 and not self._only_forward():
            return self._several()
        done = self._at_once() if self._is_plain() else None
        return done or self._by_git()

    def _only_forward(self) -> bool:
        git, says_only = self.plan.git, self.session.repo.config.get("merge.ff") == "only"
        return git.has("--ff-only") or (says_only and not git.has("--no-ff", "--ff"))

    # -- in memory -----------------------------------------------------------------------

    def _is_plain(self) -> bool:
        ours, decision = self.session.repo.head(), self.plan.decision
        if self.checked or ours is None or not self.plan.git.is_plain or decision.prompts or decision.gits:
            return False
        return in_memory.is_plain(self.session, ours, self.plan.heads[0])

    def _at_once(self) -> MergeResult | None:
        """Merge in memory and then apply it; None when something is in the way, which git tells best."""
        ours, theirs = self.session.repo.resolve("HEAD"), self.plan.heads[0]
        with Exchange(self.session).hold() as files:
            try:
                joined = deciding(
                    self.dialogue,
                    self.plan.decision.how,
                    lambda how: in_memory.join(self.session, ours, theirs, how, self.plan.base, files),
                )
                if joined.merged.texts:
                    made_texts.to_write(self.session, joined.merged.texts, at_once=True)
                if not joined.clean:
                    return None
                files.sync()
                self._apply(joined)
            except GitFailedError as error:
                self.session.journal.undo(killed=error.code < 0)
                return None
            files.release()
            return self._finish(joined, files)

    def _apply(self, joined: Joined) -> None:
        """Bring a clean merge into the index, and files and manifests into the worktree."""
        plan = self.plan
        text = plan.git.message(self.session) or concluding.message(self.session, plan.names, plan.heads)
        mode = "no-ff" if plan.stays else ""
        coming = concluding.Coming(plan.heads, text, plan.base, squash=plan.squash, mode=mode)
        concluding.apply(self.session, joined, coming, plan.decision.how, self.checked)

    def _finish(self, joined: Joined, files: Exchange | None = None) -> MergeResult:
        """Write the checkpoints of a merge that was applied, and commit it."""
        fresh = self.session.again()
        with self.dialogue.progress("writing checkpoints") as progress:
            agreement.fill(fresh, progress, files)
        found = Settlement.of(joined.merged, self.plan.decision.how.asked())
        self.dialogue.settled(found)
        if self.plan.squash:
            concluding.squashed(fresh, aloud=self.dialogue.aloud)
        return self._end(found, merging=not self.plan.squash)

    # -- by git --------------------------------------------------------------------------

    def _by_git(self) -> MergeResult:
        before = self.session.repo.head()
        self._check_worktree(before)
        with Exchange(self.session).hold() as files:
            return self._after_git(files, self._git(), before)

    def _check_worktree(self, ours: str | None) -> None:
        """Refuse to start a merge that would write over an edited tokenizer or configuration."""
        plan = self.plan
        is_one = ours is not None and len(plan.heads) == 1 and not self.session.repo.has_unmerged()
        if ours is None or not is_one or concluding.stashes(self.session, plan.git.args):
            return
        if octopus_base(self.session.repo, [ours, *plan.heads]) not in (None, ours, plan.heads[0]):
            in_memory.check_worktree(self.session, ours, plan.heads[0], plan.decision.how, plan.base)

    def _git(self) -> Result:
        """Let git merge files, and make no commit."""
        plan = self.plan
        side = [f"-X{plan.decision.side}"] if plan.decision.side else []
        args = [arg for arg in plan.git.args if arg not in ("-e", "--edit")]
        self.session.journal.moving(*plan.heads)
        git = self.session.repo.git().in_directory(self.session.cwd)
        if self._computes_ahead():
            args.append("--no-ff")
        # git's diffstat would list the files below .theta/.
        quiet = (*self.checked, "-c", "merge.stat=false", "merge", "--no-commit")
        return git.run(*quiet, *plan.decision.gits, *side, *args, *plan.names, check=False)

    def _computes_ahead(self) -> bool:
        """Return whether git could fast-forward, but a strategy needs the values of both sides."""
        head = self.session.repo.head()
        if head is None or not self.plan.everything:
            return False
        ahead = octopus_base(self.session.repo, [head, *self.plan.heads]) == head
        if ahead and self.plan.git.has("--ff-only"):
            raise UsageError("a fast-forward computes nothing", hint="leave out --ff-only")
        return ahead

    def _after_git(self, files: Exchange, done: Result, before: str | None) -> MergeResult:
        """Settle the checkpoints that git left in the index."""
        fresh = self.session.again()
        merging = done.code in (0, 1) and bool(fresh.repo.merge_heads())
        squashed = self.plan.squash and (done.code == 0 or bool(resolving.unmerged(fresh)))
        if not merging and not squashed:
            return self._by_git_alone(done, before)
        if squashed:
            recording.begin(fresh, self.plan.heads)
        how, theirs = self.plan.decision.how, self.plan.heads[0]
        merged = deciding(
            self.dialogue,
            how,
            lambda how: in_memory.after_git_merge(fresh, theirs, how, files, base=self.plan.base),
        )
        said = _of_files(done, merged.seen)
        self.dialogue.heard(said)
        found = settling.in_index(fresh, merged, how)
        self.dialogue.settled(found)
        with self.dialogue.progress("writing checkpoints") as progress:
            worktree.complete(self.session.again(), progress, files)
        return self._end(found, said, merging=merging)

    def _by_git_alone(self, done: Result, before: str | None) -> MergeResult:
        """Return the result of a git that moved HEAD, had nothing to do, or refused."""
        said = _of_files(done, set())
        self.dialogue.heard(said)
        ended = running.ended(self.session, done.code if done.code >= 0 else 128 - done.code)
        fresh = self.session.again()
        notes = (*ended.notes, *agreement.settle(fresh))
        after = fresh.repo.head()
        ending = Ending.REFUSED if done.code else Ending.UP_TO_DATE
        ending = Ending.FORWARDED if after != before else ending
        return MergeResult(ending, done.code, before, after, said=said, notes=notes, full=ended.full)

    # -- several branches ----------------------------------------------------------------

    def _several(self) -> MergeResult:
        head = self.session.repo.head()
        stashes = concluding.stashes(self.session, self.plan.git.args)
        if not stashes and (staged := concluding.staged(self.session)):
            return MergeResult(Ending.REFUSED, 2, head, head, staged=tuple(staged))
        sides = [*self.plan.ours, *self.plan.heads]
        if octopus_base(self.session.repo, sides) is None:
            self._refuse_unrelated()
        how = self.plan.decision.how
        joined = deciding(
            self.dialogue, how, lambda how: octopus.join(self.session, sides, how, self.plan.base)
        )
        if not joined.clean:
            found = undecided(joined, how.asked())
            return MergeResult(Ending.OPEN, int(ExitCode.DIFFERENCES), head, head, found)
        if stashes:
            concluding.stash(self.session)
        try:
            self._apply(joined)
        except GitFailedError as error:
            self.session.journal.undo(killed=error.code < 0)
            concluding.unstash(self.session)
            if not self.checked:
                raise
            lines = (*error.stderr.rstrip().split("\n"), "Merge with strategy octopus failed.")
            self.dialogue.heard(said := Said(err=lines))
            return MergeResult(Ending.REFUSED, 2, head, head, said=said)
        return self._finish(joined)

    def _refuse_unrelated(self) -> None:
        if not self.plan.git.has("--allow-unrelated-histories"):
            raise ThetaError(
                "refusing to merge unrelated histories",
                hint="--allow-unrelated-histories merges them nevertheless",
            )

    # -- the end -------------------------------------------------------------------------

    def _end(self, found: Settlement, said: Said | None = None, *, merging: bool) -> MergeResult:
        """Commit what is settled, unless that is not wanted."""
        said = said or Said()
        if found.unmerged or not merging or self.plan.no_commit:
            head, ending = self.session.repo.head(), Ending.CONFLICTS if found.unmerged else Ending.PREPARED
            return MergeResult(ending, int(bool(found.unmerged)), head, head, found, said=said)
        commit = partial(
            concluding.commit,
            self.session,
            self.plan.names,
            self.plan.git.to_commit,
            aloud=self.dialogue.aloud,
        )
        return conclude(self.session, commit, found, said)


def conclude(
    session: Session, commit: Callable[[], Driven], found: Settlement, said: Said | None = None
) -> MergeResult:
    """Let ``commit`` make the commit; a hook that refuses it leaves the merge unfinished."""
    before, said = session.repo.head(), said or Said()
    session.repo.identity()
    recording.tell(session)
    trailers.conclude(session)
    agreement.watch(session)
    done = commit()
    full = running.is_full(session, done.code)
    notes = agreement.settle(session.again())
    summary = version_changes.of_new(session, before)
    said = Said((*said.out, *done.said.out), (*said.err, *done.said.err))
    if summary is None:
        ending = Ending.PREPARED
        return MergeResult(ending, done.code, before, before, found, said=said, notes=notes, full=full)
    if done.code == 0:
        answers.forget(session)
        recording.forget(session)
    return MergeResult(Ending.MERGED, done.code, before, summary.commit, found, summary, said, notes)


def undecided(joined: Joined, asked: Recipe) -> Settlement:
    """Return what keeps branches from being joined."""
    return Settlement.of(joined.merged, asked, [*joined.merged.conflicts, *joined.open_files])


def _of_files(done: Result, checkpoints: set[str]) -> Said:
    """Return what git said, without the lines about things that theta does itself."""
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    problems = done.stderr.decode("utf-8", "replace").splitlines()
    return Said(
        tuple(
            line for line in lines if not line.startswith(_NOISE) and git_words.is_of_files(line, checkpoints)
        ),
        tuple(line for line in problems if _STOPPED not in line and git_words.is_of_user(line)),
    )
