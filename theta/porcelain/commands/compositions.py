"""``theta merge --recipe`` for recipes that compose a model: stacks of layers, and documents of others.

The result is a commit on top of HEAD, with the branches of its inputs as further parents.  Other files are
merged as git merges them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from theta.errors import ExitCode, NotFoundError, UsageError
from theta.git.commit_graph import independent
from theta.merging import recipe_files, recipes
from theta.merging.documents import result_texts, stacks
from theta.merging.documents.model_references import ModelReference
from theta.merging.documents.recipe_document import Document
from theta.merging.recipe_files import RecipeFile
from theta.porcelain.commands import decision
from theta.porcelain.commands.dialogue import Dialogue
from theta.porcelain.commands.merge_request import (
    Ending,
    MergeRequest,
    MergeResult,
    SettledFile,
    Settlement,
    TensorOptions,
)
from theta.porcelain.compose import composition, recipe_models, recorded
from theta.porcelain.compose.composition import Composer, Composition
from theta.porcelain.drive import renewing
from theta.porcelain.drive.running import Said
from theta.porcelain.look import version_changes
from theta.porcelain.merge import concluding, dry_run, trailers
from theta.porcelain.merge.replay import Replayed, differing
from theta.porcelain.stage.commit_writer import CommitWriter
from theta.porcelain.workspace.session import Session
from theta.progress import Progress

_WITHOUT_EFFECT: Final = {"-q", "--quiet", "--no-ff", "--no-edit", "-n", "--no-stat"}


def is_for(session: Session, file: RecipeFile) -> bool:
    """Return whether ``file`` composes a model, instead of joining branches tensor by tensor."""
    if not file.is_joining:
        return True
    only = file.documents[-1]
    if only.adapters or any(":" in name or recipe_models.has_adapter(session, name) for name in only.models):
        return True
    if _changes_dtype(session, only):
        return True
    layers = only.frames[0].inputs[0].layers
    if layers is None:
        return False
    return any(
        stacks.layer_count(recipe_models.opened(session, name, name)) != layers[1] for name in only.models
    )


def _changes_dtype(session: Session, document: Document) -> bool:
    """Return whether the configuration beside the first model tells another dtype than the result has."""
    if document.dtype is None:
        return False
    try:
        first = recipe_models.opened(session, document.models[0], document.models[0])
        config = result_texts.parsed(first)
    except (NotFoundError, UsageError):
        return False  # the merge tells what it lacks
    return config is not None and result_texts.tells_other_dtype(config, document.dtype)


def compose(session: Session, request: MergeRequest, file: RecipeFile, dialogue: Dialogue) -> MergeResult:
    """Compose the model of recipe ``file`` and commit it.

    Raises :class:`UsageError` for options that a recipe leaves no choice about, and
    :class:`RefusedError` if files have changes that are not committed.
    """
    _check(request)
    head = session.repo.resolve("HEAD")
    pinned = _pinned(session, _with_options(file, request.tensors))
    parents, labels = _parents(session, head, pinned), _labels(session, file)
    if request.dry_run:
        return _rehearse(session, Composer(session, pinned, head, labels=labels), parents, dialogue)
    renewing.refuse_unclean(session)
    with session.change() as change:
        with dialogue.progress("merging") as progress:
            composer = Composer(session, pinned, head, progress, labels)
            made = composer.compose()
        _tell(composer, dialogue)
        tree, unmerged = composition.tree(session, change.pack, parents, made)
        found = _settlement(made, unmerged)
        if unmerged:
            return MergeResult(Ending.OPEN, int(ExitCode.DIFFERENCES), head, head, found)
        text = request.for_git.message(session) or _subject(session, file, parents)
        lines = [recorded.line(pinned.bodies)]
        whole = trailers.with_trailers(session.repo, f"{text.rstrip()}\n".encode(), lines)
        writer, told = CommitWriter(), whole.decode("utf-8", "surrogateescape")
        new = writer.write(session, change, tree, head, told, parents[1:])
    renewing.commit(session, new, head, f"merge {file.label}: {file.method}")
    dialogue.settled(found)
    summary = version_changes.of_new(session, head)
    return MergeResult(Ending.MERGED, 0, head, new, found, summary)


def _check(request: MergeRequest) -> None:
    """Refuse what a recipe that composes a model does not follow."""
    why = "the recipe composes a model of its own"
    tensors = replace(request.tensors, recipe=None, seed=None, allow_nan=False, dtype=None)
    decision.refuse(request.revisions[0] if request.revisions else "", f"{why}, and names its models")
    decision.refuse(tensors.first(), why)
    decision.refuse("--base" if request.base else "", why)
    decision.refuse("--no-commit" if request.no_commit else "", why)
    git = [arg for arg in request.for_git.args if not arg.startswith(("--message=", "--file="))]
    decision.refuse(next((arg for arg in git if arg not in _WITHOUT_EFFECT), ""), why)


def _with_options(file: RecipeFile, tensors: TensorOptions) -> RecipeFile:
    """Return the recipe with seed, dtype and ``--allow-nan`` of the command line."""
    given: dict[str, Any] = {}
    if tensors.seed is not None:
        given["seed"] = recipes.seed(tensors.seed)
    if tensors.allow_nan:
        given["allow_nan"] = True
    bodies = [{**body, **given} for body in file.bodies]
    if tensors.dtype is not None:
        bodies[-1]["out_dtype"] = recipes.dtype(tensors.dtype)
    return recipe_files.of_bodies(bodies, file.label)


def _pinned(session: Session, file: RecipeFile) -> RecipeFile:
    """Return the recipe with ids of commits as the names of models."""
    names = [one.name for one in file.documents if one.name]
    if len(set(names)) < len(file.documents) - 1 or len(set(names)) < len(names):
        raise UsageError(f"{file.label}: all documents but the last need a name of their own")
    bodies = [recipe_models.pinned(session, body, file.label, names) for body in file.bodies]
    return recipe_files.of_bodies(bodies, file.label)


def _labels(session: Session, file: RecipeFile) -> dict[str, str]:
    """Return the name of each model with the id of its commit -> the name that the recipe has for it."""
    results = {one.name for one in file.documents}
    named = {
        name: one.adapters.get(name, ModelReference(name))
        for one in file.documents
        for name in one.models
        if name not in results
    }
    return {recipe_models.resolved(session, one, results).key: name for name, one in named.items()}


def _parents(session: Session, head: str, pinned: RecipeFile) -> list[str]:
    """Return HEAD and the commits of the inputs that it does not have."""
    results = {one.name for one in pinned.documents}
    named = [
        name
        for one in pinned.documents
        for frame in one.frames
        for source in frame.inputs
        for name in _names(one.adapters.get(source.model, ModelReference(source.model)))
    ]
    commits = [name.partition(":")[0] for name in named if name not in results]
    kept = independent(session.repo, list(dict.fromkeys([head, *commits])))
    return [head, *(commit for commit in kept if commit != head)]


def _names(one: ModelReference) -> tuple[str, ...]:
    return (one.base,) if one.adapter is None else (one.base, one.adapter)


def _subject(session: Session, file: RecipeFile, parents: Sequence[str]) -> str:
    if len(parents) > 1:
        return concluding.message(session, [], parents[1:])
    return f"Compose {' and '.join(file.documents[-1].models)} ({file.method})"


def _settlement(made: Composition, unmerged: Sequence[str]) -> Settlement:
    settled = [
        SettledFile(path, len(rows), {row.name: row.strategy for row in rows if row.strategy})
        for path, rows in made.rows.items()
    ]
    return Settlement(() if unmerged else tuple(settled), {}, tuple(unmerged))


def _rehearse(
    session: Session, composer: Composer, parents: Sequence[str], dialogue: Dialogue
) -> MergeResult:
    with dry_run.rehearsal(session) as apart, dialogue.progress("merging") as progress:
        composer = replace(composer, session=apart, progress=progress)
        made = composer.compose()
        with apart.objects.writing() as pack:
            _, unmerged = composition.tree(apart, pack, parents, made)
    _tell(composer, dialogue)
    head, found = parents[0], _settlement(made, unmerged)
    code, texts = int(bool(unmerged)), composition.new_texts(session, head, made)
    return MergeResult(Ending.REHEARSED, code, head, head, found, rows=made.rows, texts=texts)


def _tell(composer: Composer, dialogue: Dialogue) -> None:
    """Pass on what is doubtful in adapters."""
    if composer.doubts:
        dialogue.heard(Said(err=[f"warning: {text}" for text in composer.doubts]))


def again(session: Session, oid: str, progress: Progress | None) -> Replayed | None:
    """Compose the model of commit ``oid`` again by its trailer, and compare; None when it has none."""
    recipe = recorded.of_commit(session, oid)
    if recipe is None:
        return None
    commit = session.repo.commit(oid)
    if not commit.parents:
        raise UsageError(f"{oid[:12]} has no parent, and a model is composed on top of one")
    made = Composer(session, recipe, commit.parents[0], progress).compose()
    with session.objects.writing() as pack:
        tree, unmerged = composition.tree(session, pack, commit.parents, made)
    if tree == commit.tree:
        return Replayed(oid, tree, same=True)
    others = (
        differing(session, session.repo.whole_tree(tree), session.repo.tree_of(oid)) if tree else unmerged
    )
    return Replayed(oid, tree, (), others)
