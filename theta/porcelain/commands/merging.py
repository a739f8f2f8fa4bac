"""Merging revisions into HEAD: files as git merges them, checkpoints tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from theta.errors import ThetaError, UsageError
from theta.git import in_progress
from theta.git.commit_graph import independent, merge_bases, octopus_base
from theta.git.in_progress import Operation
from theta.git.state_files import MERGE_HEAD
from theta.merging.strategies import SIDES, Strategy
from theta.porcelain.commands import compositions, decision, merge_routes, settling
from theta.porcelain.commands.decision import MergePlan
from theta.porcelain.commands.dialogue import NOBODY, Dialogue
from theta.porcelain.commands.merge_request import (
    Ending,
    MergeRequest,
    MergeResult,
    Settlement,
    TensorOptions,
    is_gits,
)
from theta.porcelain.commands.merge_routes import Route, undecided
from theta.porcelain.drive import overwrites, running
from theta.porcelain.drive.running import Said
from theta.porcelain.merge import answers, dry_run, octopus, recording, replay, resolving, trailers
from theta.porcelain.merge.replay import Replayed
from theta.porcelain.search import trials
from theta.porcelain.search.trials import Contest, Score, SearchRequest, SearchResult
from theta.porcelain.workspace import agreement, worktree
from theta.porcelain.workspace.session import Session

_SEARCHED: Final = "name it: -X ties --search ..."
UP_TO_DATE: Final = "Already up to date."
_OF_GIT: Final = ("ort", "recursive", "resolve", "octopus")


def merge(session: Session, request: MergeRequest, dialogue: Dialogue = NOBODY) -> MergeResult:
    """Merge what ``request`` names into HEAD.

    What is in conflict is a result, not an error.  Raises :class:`UsageError` for a request that
    cannot be carried out, and :class:`ThetaError` of other kinds where nothing was begun.
    """
    recipe = request.tensors.recipe
    if recipe is not None and compositions.is_for(session, recipe):
        return compositions.compose(session, request, recipe, dialogue)
    plan = decision.plan(session, request, dialogue)
    if strategy := _foreign_strategy(session, plan):
        given = request.tensors.first() or ("--dry-run" if request.dry_run else "")
        decision.refuse(given, f"git's strategy {strategy} takes checkpoints as whole files")
        return _by_strategy(session, plan, dialogue)
    if request.dry_run:
        return _rehearse(session, _reduced(session, plan))
    with session.change():
        return _merge(session, plan, dialogue)


def _merge(session: Session, plan: MergePlan, dialogue: Dialogue) -> MergeResult:
    head = session.repo.head()
    if left := in_progress.not_concluded(session.repo):
        return MergeResult(Ending.REFUSED, 128, head, head, left=left)
    agreement.before_git(session)
    if not in_progress.current(session.repo).name:
        recording.begin(session)
    plan = _reduced(session, plan)
    if not plan.heads:
        dialogue.heard(said := Said((UP_TO_DATE,)))
        return MergeResult(Ending.UP_TO_DATE, 0, head, head, said=said)
    _expect_versions(session, plan)
    checked = overwrites.options(session, ["merge", *plan.heads])
    return Route(session, dialogue, plan, checked).run()


def _expect_versions(session: Session, plan: MergePlan) -> None:
    """Announce that the checkpoints of all sides and bases will be read: a partial clone asks once."""
    head = session.repo.head()
    if head is not None and session.repo.promised.is_partial:
        bases = [plan.base] if plan.base else []
        for theirs in plan.heads:
            bases += merge_bases(session.repo, head, theirs)
        session.expect_trees([head, *plan.heads, *bases])


def search(
    session: Session,
    request: MergeRequest,
    asked: SearchRequest,
    score: Score,
    dialogue: Dialogue = NOBODY,
    told: Callable[[SearchResult], None] = lambda _: None,
) -> tuple[MergeRequest, SearchResult]:
    """Return ``request`` with the parameters of its strategy that score best, and all trials.

    Nothing is merged yet.  Raises :class:`UsageError` where the request has no strategy to search for, and
    what :func:`theta.porcelain.search.trials.search` raises.
    """
    if file := request.tensors.recipe:
        raise UsageError(f"a search is for the parameters of a strategy, not of {file.label}", hint=_SEARCHED)
    plan = _reduced(session, decision.plan(session, request, dialogue))
    if plan.is_done:
        raise UsageError(f"nothing to search for: HEAD has all of {' and '.join(request.revisions)}")
    recipe = plan.decision.how.asked()
    if recipe.default is None or recipe.default.name in SIDES:
        raise UsageError("a search is for the parameters of a strategy", hint=_SEARCHED)
    gits = [option for option in request.tensors.strategies if is_gits(option)]

    def asking(strategy: Strategy, searched: str = "") -> MergeRequest:
        strategies = (str(strategy), *gits)
        return replace(request, tensors=replace(request.tensors, strategies=strategies, searched=searched))

    contest = Contest(
        (session.repo.resolve("HEAD"), *plan.heads),
        plan.base,
        recipe.default,
        lambda strategy: (
            decision.plan(session, replace(asking(strategy), dry_run=False), NOBODY).decision.how
        ),
        repr(
            [replace(recipe, default=None).text(), trailers.statistics(session, request.tensors.statistics)]
        ),
    )
    found = trials.search(session, contest, asked, score, told)
    return asking(found.best.strategy, found.text()), found


def _by_strategy(session: Session, plan: MergePlan, dialogue: Dialogue) -> MergeResult:
    """Let git merge with a strategy that takes no tensor from two sides."""
    before = session.repo.head()
    stop = ["--no-commit"] if plan.no_commit else []
    words = ("merge", *plan.decision.gits, *stop, *plan.git.args, *plan.names)
    done = running.drive(
        session,
        *words,
        aloud=dialogue.aloud,
        tell=dialogue.heard,
        shown=dialogue.progress,
    )
    fresh = session.again()
    after, unmerged = fresh.repo.head(), resolving.unmerged(fresh)
    ending = Ending.REFUSED if done.code else Ending.UP_TO_DATE
    if fresh.repo.merge_heads() or (plan.squash and not done.code):
        ending = Ending.CONFLICTS if unmerged else Ending.PREPARED
    ending = Ending.MERGED if after != before else ending
    found = Settlement(unmerged=tuple(unmerged))
    return MergeResult(
        ending, done.code, before, after, found, said=done.said, notes=done.notes, full=done.full
    )


def _foreign_strategy(session: Session, found: MergePlan) -> str:
    """Return git's strategy, asked for or configured, if it does not merge contents (``-s ours``)."""
    given = found.git.values.get("--strategy")
    count = len(found.heads)
    key = "pull.octopus" if count > 1 else "pull.twohead"
    config = session.repo.config
    if given is None and key in config:
        given = config.get(key) or ""
        if count > 1 and given != "octopus":
            return given
    return "" if given is None or given in _OF_GIT else given


def _reduced(session: Session, found: MergePlan) -> MergePlan:
    """Leave out what is part of HEAD or of another branch, and HEAD itself if it is part of one."""
    if not found.ours:
        return found
    head = found.ours[0]
    kept = independent(session.repo, [head, *found.heads])
    names = dict(zip(reversed(found.heads), reversed(found.names), strict=True))
    joined = [commit for commit in kept if commit != head]
    parts = [name for commit, name in names.items() if commit not in joined]
    decision.refuse_parts(found.tensors, parts, everything=not joined)
    # git tells best what becomes of a single branch
    heads = joined if len(names) > 1 or head not in kept or found.everything else found.heads[:1]
    apart = head not in kept and len(heads) > 1 and not found.stays
    return replace(
        found,
        names=[names[commit] for commit in heads],
        heads=heads,
        ours=[] if apart else found.ours,
        is_done=not joined,
    )


# -- of an unfinished merge - --------------------------------------------------------


def go_on(
    session: Session,
    options: TensorOptions,
    dialogue: Dialogue = NOBODY,
    *,
    no_commit: bool = False,
) -> MergeResult:
    """Settle the conflicts of the unfinished merge, and commit it; other operations git commits."""
    with session.change():
        now, head = _under_way(session), session.repo.head()
        worktree.refresh(session)
        decided = decision.decide_here(session, options, dialogue)
        if not resolving.unmerged(session):
            decision.refuse(options.first(), "nothing is in conflict any more")
        found = settling.settle(session, decided, dialogue)
        if found.unmerged:
            return MergeResult(Ending.CONFLICTS, 1, head, head, found)
        if no_commit or now.name != "merge":
            return MergeResult(Ending.PREPARED, 0, head, head, found)
        return _conclude(session, dialogue, found)


def conclude(session: Session, dialogue: Dialogue = NOBODY) -> MergeResult:
    """Commit the unfinished merge; conflicts stay as they are, and then there is no commit."""
    with session.change():
        now, head = _under_way(session), session.repo.head()
        worktree.refresh(session)
        unmerged = tuple(resolving.unmerged(session))
        if unmerged or now.name != "merge":
            ending = Ending.CONFLICTS if unmerged else Ending.PREPARED
            return MergeResult(
                ending, int(bool(unmerged)), head, head, Settlement(unmerged=unmerged, go_on=now.go_on)
            )
        return _conclude(session, dialogue, Settlement(idle=True, go_on=now.go_on))


def _under_way(session: Session) -> Operation:
    now = in_progress.current(session.repo)
    if not now.name:
        raise ThetaError(f"there is no merge in progress ({MERGE_HEAD} missing)")
    return now


def _conclude(session: Session, dialogue: Dialogue, found: Settlement) -> MergeResult:
    commit = partial(running.run, session.repo.git(), "commit", "--quiet", "--no-edit", aloud=dialogue.aloud)
    return merge_routes.conclude(session, commit, found)


def abort(session: Session, dialogue: Dialogue = NOBODY, *words: str) -> MergeResult:
    """Give up the unfinished merge and restore the state before it, unless ``words`` ask git for more."""
    answers.forget(session)
    recording.forget(session)
    before, words = session.repo.head(), words or ("--abort",)
    done = running.drive(
        session, "merge", *words, refresh=False, aloud=dialogue.aloud, shown=dialogue.progress
    )
    ending = Ending.REFUSED if done.code else Ending.ABORTED
    return MergeResult(ending, done.code, before, before, said=done.said, notes=done.notes, full=done.full)


# -- that changes nothing ----------------------------------------------------------------


def _rehearse(session: Session, plan: MergePlan) -> MergeResult:
    """Tell what a merge would do to each tensor, and what it would store."""
    ours = session.repo.resolve("HEAD")
    base = plan.base or octopus_base(session.repo, [ours, *plan.heads])
    if plan.is_done:
        return MergeResult(Ending.UP_TO_DATE, 0, ours, ours, said=Said((UP_TO_DATE,)), base=base)
    with dry_run.rehearsal(session) as apart:
        joined = octopus.join(apart, [ours, *plan.heads], plan.decision.how, plan.base)
    found = undecided(joined, plan.decision.how.asked())
    code, merged = int(bool(found.unmerged)), joined.merged
    texts = sorted(merged.texts)
    return MergeResult(
        Ending.REHEARSED,
        code,
        ours,
        ours,
        found,
        base=base,
        rows=merged.rows,
        texts=texts,
        forward=plan.heads[0] if _forwards(session, plan) else "",
    )


def _forwards(session: Session, plan: MergePlan) -> bool:
    """Return whether git would fast-forward instead of a merge."""
    never = plan.git.has("--no-ff", "--squash") or plan.everything or plan.stays
    if never or len(plan.heads) > 1 or not plan.ours:
        return False
    wanted = plan.git.has("--ff", "--ff-only") or session.repo.setting("merge.ff")
    return wanted and merge_bases(session.repo, plan.ours[0], plan.heads[0]) == [plan.ours[0]]


def is_done(session: Session, request: MergeRequest, dialogue: Dialogue = NOBODY) -> bool:
    """Return whether HEAD has all of what ``request`` names; raises as :func:`merge` does."""
    recipe = request.tensors.recipe
    return recipe is None and _reduced(session, decision.plan(session, request, dialogue)).is_done


def again(session: Session, revision: str, dialogue: Dialogue = NOBODY) -> Replayed:
    """Do the merge of commit ``revision`` again by its trailers, and compare; nothing is changed."""
    oid = session.repo.resolve(f"{revision}^{{commit}}")
    with dry_run.rehearsal(session) as apart, dialogue.progress("merging") as progress:
        done = compositions.again(apart, oid, progress) or replay.replay(apart, oid, progress)
    if done is None:
        raise UsageError(f"{revision} is not a merge", hint="theta merge --replay takes a merge commit")
    return done
