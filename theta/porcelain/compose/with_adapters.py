"""Models with an adapter folded in, as inputs of a recipe.

The sum is what ``theta add --update-data`` makes: correctly rounded, one tensor at a time.  What is stored
for it are the factors, so an input costs no more than its adapter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from theta.errors import UsageError
from theta.merging.adapters import scales
from theta.merging.documents import result_texts
from theta.merging.documents.model_files import CONFIG, ModelFiles, is_of_tokens
from theta.porcelain.compose import adapter_places
from theta.porcelain.stage import adapters, folding, update_files
from theta.porcelain.stage.folding import UpdatedShard
from theta.porcelain.workspace.session import Session
from theta.progress import Progress
from theta.store.format.manifest import Manifest

_TIMES: Final = 4
_SMALL: Final = 1 << 26
"""An adapter has at most so many times the bytes of its model, and these: all of it is in memory."""


def folded(
    session: Session, base: ModelFiles, place: str, label: str, progress: Progress | None
) -> tuple[ModelFiles, list[str]]:
    """Return the model ``base`` with the adapter at ``place``, called ``label``, and what is doubtful in it.

    Raises :class:`UsageError` for an adapter that does not fit, and :class:`NotFoundError` for none.
    """
    found = adapter_places.opened(session, place)
    size = sum(line.nbytes for line in base.lines.values())
    if found.nbytes > _TIMES * size + _SMALL:
        told = f"{label}: {found.label} is no adapter of this model"
        raise UsageError(f"{told}: it has {found.nbytes} bytes, and the model {size}")
    objects = session.objects
    shards = [UpdatedShard(path, manifest) for path, manifest in base.manifests.items()]
    try:
        adapter = adapters.parsed(f"{found.label}/{scales.CONFIG}", found.config)
        objects.expect(found.trees)
        brought = update_files.of_adapter(adapter, found.weights, f"the weights in {found.label}")
        plan = folding.plan(shards, [brought], [1.0], result_texts.parsed(base) or {})
    except UsageError as error:
        raise UsageError(f"{label}: {error}", hint=error.hint, details=error.details) from error
    for shard in shards:
        objects.expect(shard.manifest.trees())
    with objects.writing(keep=True) as pack:
        changed = folding.store(objects, pack, shards, plan.steps, progress)
    manifests = dict(zip(base.manifests, changed, strict=True))
    (fitted,) = plan.fitted
    doubts = [folding.of_ties(plan.ties, brought, fitted.steps), folding.of_names(fitted.renamed)]
    made = ModelFiles(label, base.folder, manifests, _texts(base, manifests))
    return made, [f"{label}: {text}" for text in doubts if text]


def _texts(base: ModelFiles, manifests: Mapping[str, Manifest]) -> Mapping[str, bytes]:
    """Return the files beside the model; the configuration tells the rows of a vocabulary that changed."""
    config = result_texts.parsed(base)
    lines = {line.name: line for manifest in manifests.values() for line in manifest.lines}
    changed = [
        line.shape[0]
        for name, line in lines.items()
        if is_of_tokens(name) and name in base.lines and line.shape != base.lines[name].shape
    ]
    if config is None or not changed:
        return base.texts
    result_texts.with_rows(config, changed[0])
    return {**base.texts, CONFIG: result_texts.written(config)}
