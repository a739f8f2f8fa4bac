"""The plan of a merge request: commits, how they are compared and decided, and the requests it refuses."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from theta.errors import UsageError
from theta.git.commit_graph import independent
from theta.porcelain.commands import decision
from theta.porcelain.commands.decision import Decision
from theta.porcelain.commands.dialogue import Dialogue
from theta.porcelain.commands.merge_request import GitOptions, MergeRequest, TensorOptions
from theta.porcelain.workspace.session import Session

_OF_GIT: Final = ("ort", "recursive", "resolve", "octopus")


@dataclass(frozen=True)
class MergePlan:
    """A merge request that makes sense.

    Attributes:
        tensors: how tensors are settled, as it was asked for.
        git: the options for git.
        decision: how tensors are settled.
        names: the names of the commits to merge.
        heads: the commits to merge.
        base: the commit to compare with; None means the merge base.
        no_commit: stop before the commit.
        ours: HEAD, unless another branch has all of it and it is no parent of the merge.
    """

    tensors: TensorOptions
    git: GitOptions
    decision: Decision
    names: list[str]
    heads: list[str]
    base: str | None
    no_commit: bool
    ours: list[str] = field(default_factory=list)

    @property
    def everything(self) -> bool:
        """Whether tensors that git would settle by itself are computed with too."""
        return self.decision.how.everything

    @property
    def squash(self) -> bool:
        """Whether the commit will have one parent."""
        return self.git.has("--squash")

    @property
    def stays(self) -> bool:
        """Whether HEAD becomes a parent even where another branch has all of it."""
        return self.tensors.recipe is not None or self.git.has("--no-ff")


def plan(session: Session, request: MergeRequest, dialogue: Dialogue) -> MergePlan:
    """Check ``request``; raises :class:`UsageError` and :class:`NotFoundError`."""
    tensors, recipe = request.tensors, request.tensors.recipe
    names = [*request.revisions] or _named(session, tensors) or [_upstream(session)]
    heads = decision.commits(session, names)
    ours = session.repo.head()
    order = decision.order(session, recipe, [ours or "", *heads]) if recipe and recipe.models else None
    decision.check_statistics(tensors, 1 + len(heads))
    decision.check_rules(session, tensors, [*filter(None, [ours]), *heads])
    decided = decision.decide(session, tensors, dialogue, order, dry_run=request.dry_run)
    base = request.base or (recipe.base if recipe else None)
    return MergePlan(
        tensors,
        request.for_git,
        decided,
        names,
        heads,
        decision.commits(session, [base])[0] if base else None,
        request.no_commit or request.for_git.has("--no-commit"),
        [ours] if ours else [],
    )


def _named(session: Session, tensors: TensorOptions) -> list[str]:
    """Return the revisions of a recipe that are not what is checked out."""
    head = session.repo.head()
    models = tensors.recipe.models if tensors.recipe else ()
    return [name for name in models if decision.commits(session, [name]) != [head]]


def _upstream(session: Session) -> str:
    """Return the name of the upstream branch; raises :class:`UsageError` when there is none."""
    done = session.repo.git().run("rev-parse", "-q", "--abbrev-ref", "@{upstream}", check=False)
    if done.code or not done.text.strip():
        raise UsageError("nothing to merge: no revision and no upstream branch", hint="theta merge BRANCH")
    return done.text.strip()


def foreign_strategy(session: Session, found: MergePlan) -> str:
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


def reduced(session: Session, found: MergePlan) -> MergePlan:
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
        found, names=[names[commit] for commit in heads], heads=heads, ours=[] if apart else found.ours
    )
