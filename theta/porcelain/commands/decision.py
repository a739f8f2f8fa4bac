"""How tensors in conflict are decided: the options of a command over a recipe over git's configuration.

A merge is planned here too, since its recipe names the commits, and requests that make no sense are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from theta.errors import UsageError, did_you_mean
from theta.git import in_progress
from theta.merging import recipes as texts
from theta.merging.recipe_files import RecipeFile
from theta.merging.recipes import Recipe
from theta.merging.result_file import CONTAINER
from theta.merging.strategies import SIDES, parse
from theta.porcelain.commands.dialogue import Dialogue
from theta.porcelain.commands.merge_request import GitOptions, MergeRequest, TensorOptions, is_gits
from theta.porcelain.drive import incoming
from theta.porcelain.merge import recording, resolving, trailers
from theta.porcelain.merge.answers import Answers, UndoneError
from theta.porcelain.merge.joining import FILE, How
from theta.porcelain.workspace.session import Session

Decided = TypeVar("Decided")


@dataclass(frozen=True)
class Decision:
    """How to decide, against which base, and git's own -X options that stood among theta's.

    Attributes:
        how: how tensors are decided.
        side: ``ours`` or ``theirs`` where that holds for files too.
        gits: git's own ``-X`` options.
        base: the commit to compare with in place of the common ancestor.
        prompts: the user is asked about the tensors that are left.
    """

    how: How
    side: str = ""
    gits: Sequence[str] = field(default_factory=list)
    base: str | None = None
    prompts: bool = False


def decide(
    session: Session,
    options: TensorOptions,
    dialogue: Dialogue,
    order: Sequence[int | None] | None = None,
    *,
    dry_run: bool = False,
) -> Decision:
    """Return the decision that ``options`` ask for; ``order`` are the numbers of the sides in the recipe."""
    ours = [option for option in options.strategies if not is_gits(option)]
    if len(ours) > 1:
        raise UsageError(
            "-X can name only one strategy for tensors",
            hint="give one -X, and --rule GLOB=STRATEGY for the rest",
        )
    chosen = parse(ours[0]) if ours else None
    recipe = texts.combine(
        chosen,
        [texts.rule(text) for text in options.rules],
        options.recipe.recipe(order) if options.recipe else trailers.configured(session),
        scope=texts.scope(options.scope) if options.scope else None,
        seed=texts.seed(options.seed) if options.seed else None,
        allow_nan=options.allow_nan or None,
        dtype=texts.dtype(options.dtype) if options.dtype else None,
    )
    if options.align_spec and not options.align:
        raise UsageError("--align-spec goes with --align", hint="--align weights --align-spec FILE")
    align = texts.alignment(options.align, options.align_spec) if options.align else None
    by_token = "" if trailers.matches_tokens(session) else None
    recipe = replace(recipe, align=align, searched=options.searched, by_token=by_token)
    trailers.refuse_statistics(recipe, options.statistics)
    if options.statistics and not dialogue.asks and not recipe.uses_statistics:
        raise UsageError(
            "--statistics would have no effect: no strategy of this merge uses them",
            hint="-X fisher, -X regmean and -X smear do",
        )
    prompts = dialogue.asks and not dry_run
    side = chosen.name if chosen and chosen.name in SIDES[:2] else ""
    gits = [f"-X{option}" for option in options.strategies if is_gits(option)]
    found = trailers.statistics(session, options.statistics)
    engine_options = trailers.Round(recipe, found).options(session, dry_run=dry_run)
    how = _how(session, recipe, dialogue, prompts=prompts)
    return Decision(replace(how, options=engine_options), side, gits, prompts=prompts)


def _how(session: Session, recipe: Recipe, dialogue: Dialogue, *, prompts: bool) -> How:
    answers = Answers(session, dialogue.recalled)
    asker = dialogue.asker(session, answers) if prompts else None
    return How(recipe.policy(asker, answers.find), asked=lambda: _followed(recipe, answers))


def _followed(recipe: Recipe, answers: Answers) -> Recipe:
    """Return ``recipe`` with the answers that hold for several tensors as rules."""
    return replace(recipe, rules=(*recipe.rules, *answers.rules()))


def decide_here(session: Session, options: TensorOptions, dialogue: Dialogue) -> Decision:
    """Return the decision for the conflicts of the unfinished operation; only a merge takes a recipe."""
    now = in_progress.current(session.repo)
    heads = session.repo.merge_heads() or [now.theirs or ""]
    check_statistics(options, 1 + len(heads))
    if options.rules:
        check_names(options, resolving.tensors(session))
    file, options = options.recipe, _as_begun(session, options)
    if file is None:
        return decide(session, options, dialogue)
    if now.name != "merge":
        raise UsageError(
            f"{file.label} names models, which only a merge has", hint="use -X STRATEGY and --rule"
        )
    numbers = order(session, file, [now.ours or "", *heads]) if file.models else None
    decision = decide(session, options, dialogue, numbers)
    return replace(decision, base=commits(session, [file.base])[0] if file.base else None)


def _as_begun(session: Session, options: TensorOptions) -> TensorOptions:
    """Return ``options`` with seed, dtype and ``--allow-nan`` of the command that left the conflicts."""
    began = recording.terms(session)
    return replace(
        options,
        seed=options.seed or (str(began.seed) if began.seed else None),
        dtype=options.dtype or began.dtype,
        align=options.align or (began.align.way if began.align else None),
        align_spec=options.align_spec or (began.align.spec if began.align else ""),
        allow_nan=options.allow_nan or began.allow_nan,
    )


def order(session: Session, file: RecipeFile, sides: Sequence[str]) -> list[int | None]:
    """Return for each side its number among the models of the recipe ``file``; None for one that has none."""
    known = commits(session, file.models)
    return [known.index(side) if side in known else None for side in sides]


def commits(session: Session, names: Sequence[str]) -> list[str]:
    """Return the commits that ``names`` mean; raises :class:`NotFoundError`."""
    for name in names:
        session.repo.resolve(name)
    return [session.repo.resolve(f"{name}^{{commit}}") for name in names]


# -- of a merge --------------------------------------------------------------------------


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
        is_done: HEAD has all of the commits to merge.
    """

    tensors: TensorOptions
    git: GitOptions
    decision: Decision
    names: list[str]
    heads: list[str]
    base: str | None
    no_commit: bool
    ours: list[str] = field(default_factory=list)
    is_done: bool = False

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
    heads = commits(session, names)
    ours = session.repo.head()
    numbers = order(session, recipe, [ours or "", *heads]) if recipe and recipe.models else None
    check_statistics(tensors, 1 + len(heads))
    check_rules(session, tensors, [*filter(None, [ours]), *heads])
    decided = decide(session, tensors, dialogue, numbers, dry_run=request.dry_run)
    base = request.base or (recipe.base if recipe else None)
    return MergePlan(
        tensors,
        request.for_git,
        decided,
        names,
        heads,
        commits(session, [base])[0] if base else None,
        request.no_commit or request.for_git.has("--no-commit"),
        [ours] if ours else [],
    )


def _named(session: Session, tensors: TensorOptions) -> list[str]:
    """Return the revisions of a recipe that are not what is checked out."""
    head = session.repo.head()
    models = tensors.recipe.models if tensors.recipe else ()
    return [name for name in models if commits(session, [name]) != [head]]


def _upstream(session: Session) -> str:
    """Return the name of the upstream branch; raises :class:`UsageError` when there is none."""
    done = session.repo.git().run("rev-parse", "-q", "--abbrev-ref", "@{upstream}", check=False)
    if done.code or not done.text.strip():
        raise UsageError("nothing to merge: no revision and no upstream branch", hint="theta merge BRANCH")
    return done.text.strip()


# -- what would have no effect, or cannot be done ----------------------------------------


def refuse(given: str, why: str) -> None:
    """Refuse the option ``given``, unless it is empty: it would have no effect."""
    if given:
        raise UsageError(f"{given} would have no effect: {why}", hint=f"leave out {given}")


def refuse_parts(options: TensorOptions, parts: Sequence[str], *, everything: bool) -> None:
    """Refuse ``options`` that cannot be carried out since HEAD, or another branch, has all of ``parts``.

    A recipe asks for a result of all its models, which HEAD need not be.  Statistics name the sides one
    by one, of what there is to merge.  ``everything``: there is nothing; the merge is up to date, as in
    git, whatever options say how it would go.
    """
    label = options.recipe.label if options.recipe else ""
    if parts and (label or (options.statistics and not everything)):
        raise UsageError(
            f"{label or '--statistics'} cannot be carried out: a merge joins branches, and all of "
            f"{' and '.join(parts)} is part of HEAD already, or of another branch of this merge",
            hint="'theta branch NAME COMMIT' starts a branch at the older commit; commit there what to merge",
        )


def check_statistics(options: TensorOptions, sides: int) -> None:
    """Refuse ``--statistics`` that are not one for each side."""
    if options.statistics and len(options.statistics) != sides:
        raise UsageError(
            f"--statistics is given {len(options.statistics)} times and the merge has {sides} sides",
            hint="one for each side, ours first",
        )


def check_rules(session: Session, options: TensorOptions, revisions: Sequence[str]) -> None:
    """Refuse a ``--rule`` whose pattern is the name of no tensor in any of ``revisions``."""
    if not options.rules:
        return
    found = (manifest for one in revisions for manifest in session.at(one).manifests.values())
    check_names(options, (line.name for manifest in found for line in manifest.lines))


def check_step_rules(session: Session, options: TensorOptions, args: Sequence[str]) -> None:
    """Refuse a ``--rule`` that names no tensor.

    The tensors are those of HEAD, those of the commits that ``git ARGS`` applies, and those in conflict.
    """
    if not options.rules:
        return
    trees = {step.after.id: step.after for step in incoming.changes(session.repo, args)}
    sides = [session.head, *map(session.of_tree, trees.values())]
    names = {line.name for side in sides for one in side.manifests.values() for line in one.lines}
    check_names(options, names | resolving.tensors(session))


def check_names(options: TensorOptions, tensors: Iterable[str]) -> None:
    """Refuse a ``--rule`` whose pattern matches none of ``tensors``."""
    names = {*tensors}
    for rule in map(texts.rule, options.rules):
        if names and not any(rule.matches(name) for name in (*names, CONTAINER, FILE)):
            raise UsageError(
                f"--rule '{rule}' matches no tensor",
                hint=did_you_mean(rule.glob, names) or "'theta show HEAD:PATH' lists the names",
            )


def deciding(dialogue: Dialogue, how: How, work: Callable[[How], Decided]) -> Decided:
    """Do ``work`` with progress shown, again from the start whenever an answer is taken back."""
    with dialogue.progress("merging") as progress:
        how = replace(how, progress=progress)
        while True:
            try:
                return work(how)
            except UndoneError:
                continue
