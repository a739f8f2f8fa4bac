"""Settling checkpoints in conflict: after a merge, a rebase, or a popped stash."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from theta.git import in_progress
from theta.porcelain.commands.decision import Decision, decide_here, deciding
from theta.porcelain.commands.dialogue import NOBODY, Dialogue
from theta.porcelain.commands.merge_request import Settlement, TensorOptions
from theta.porcelain.merge import answers, resolving
from theta.porcelain.merge.joining import How, Merged
from theta.porcelain.workspace import agreement
from theta.porcelain.workspace.session import Session


def resolve(
    session: Session, options: TensorOptions, paths: Sequence[str] = (), dialogue: Dialogue = NOBODY
) -> Settlement:
    """Settle the checkpoints in conflict (those at ``paths``, if given), and stage them; commit nothing."""
    decision = decide_here(session, options, dialogue)
    with session.change():
        return settle(session, decision, dialogue, paths)


def settle(session: Session, decision: Decision, dialogue: Dialogue, paths: Sequence[str] = ()) -> Settlement:
    """Do as :func:`resolve`, under the lock, as decided."""
    fresh = session.again()
    only = resolving.unmerged(fresh, [*paths]) if paths else None
    if paths and not only:
        resolving.check_paths(fresh, paths)
    if not resolving.unmerged(fresh) or only == []:
        agreement.fill(fresh)  # .theta/ alone may be in conflict, and is no matter of the user's
        return Settlement(idle=True, go_on=in_progress.current(fresh.repo).go_on)
    return _settled(fresh, replace(decision, how=replace(decision.how, whole=True)), dialogue, only)


def settle_stop(
    session: Session, decision: Decision, dialogue: Dialogue, *, whole: bool = False
) -> Settlement:
    """Settle what a stop of a sequence left in conflict; ``whole``: files that one side deleted too."""
    decision = replace(decision, how=replace(decision.how, whole=whole), base=None)
    return _settled(session.again(), decision, dialogue, at_once=not whole)


def _settled(
    session: Session,
    decision: Decision,
    dialogue: Dialogue,
    only: Sequence[str] | None = None,
    *,
    at_once: bool = False,
) -> Settlement:
    work = partial(resolving.resolve, session, only=only, base=decision.base, at_once=at_once)
    merged = deciding(dialogue, decision.how, work)
    found = in_index(session, merged, decision.how)
    dialogue.settled(found)
    return found


def in_index(session: Session, merged: Merged, how: How) -> Settlement:
    """Return what ``merged`` left in the index; decisions of rules in open checkpoints stay as answers."""
    unmerged = resolving.unmerged(session)
    if unmerged:
        answers.keep_ruled(session, resolving.conflicts(session), merged.decided, how.asked())
    go_on = in_progress.current(session.repo).go_on
    stash = not go_on and "refs/stash" in session.repo.refs
    return replace(Settlement.of(merged, how.asked(), unmerged, go_on), stash=stash)
