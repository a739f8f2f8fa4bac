"""Recipe files: YAML with keys of mergekit and of theta.

mergekit's are ``merge_method``, ``base_model``, ``models`` or ``slices``, ``name`` of each of several
documents, and ``parameters`` of all and of each model, which are scalars, gradients over the layers, or
lists of ``filter`` and ``value``.  theta's are ``rules``, ``scope``, ``seed`` and ``allow_nan``.  Other
keys are errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from theta.errors import NotFoundError, UsageError
from theta.merging import recipes
from theta.merging.documents import recipe_document, recipe_keys, recipe_values, yaml_documents
from theta.merging.documents.recipe_document import PAIRS, Document
from theta.merging.recipes import Recipe, Rule
from theta.merging.strategies.parameter_text import Setting


@dataclass(frozen=True)
class RecipeFile:
    """A parsed recipe file.

    Attributes:
        label: the name of the file, for errors.
        method: the merge method.
        models: the revisions of the inputs in the file's order, without the base.
        base: the revision of ``base_model``; None for the merge base.
        shared: the parameters of all models.
        own: the parameters of each model.
        rules: strategies of single tensors.
        scope: ``conflicts`` or ``all``.
        seed: the seed of random methods.
        allow_nan: accept new NaNs and infinities.
        dtype: the dtype of all floats of the result, or None.
        notes: keys that have no effect, and why.
        documents: all documents, of which the other attributes are those of the last.
        bodies: the documents as they stand in the file.
    """

    label: str
    method: str
    models: tuple[str, ...]
    base: str | None
    shared: Mapping[str, Setting]
    own: tuple[Mapping[str, Setting], ...]
    rules: tuple[Rule, ...] = ()
    scope: str = "conflicts"
    seed: int = 0
    allow_nan: bool = False
    dtype: str | None = None
    notes: tuple[str, ...] = ()
    documents: tuple[Document, ...] = ()
    bodies: tuple[Mapping[str, Any], ...] = ()

    @property
    def is_joining(self) -> bool:
        """Whether the recipe joins branches tensor by tensor; other recipes compose a model of their own."""
        only = self.documents[-1]
        several = len(self.documents) > 1 or len(only.frames) > 1
        words = only.tokenizer is not None or bool(only.chat_template)
        return (
            not several
            and not words
            and not only.adapters
            and self.base not in self.models
            and (not only.is_sliced or _from_start(only))
        )

    def recipe(self, order: Sequence[int | None] | None = None) -> Recipe:
        """Return the recipe for inputs in the order of the merge.

        Args:
            order: for each side of the merge, ours first, its number in :attr:`models`; None for a
                side that the recipe does not name, such as ours when two other branches are merged.
        """
        if not self.is_joining:
            raise UsageError(f"{self.label} composes a model, which only 'theta merge --recipe' does")
        places: list[int | None] = list(range(len(self.models))) if order is None else list(order)
        if sorted(place for place in places if place is not None) != list(range(len(self.models))):
            raise UsageError(
                f"{self.label} names {len(self.models)} models and the merge has {len(places)} sides",
                hint=f"merge {' '.join(self.models)}",
            )
        own = [{} if place is None else self.own[place] for place in places]
        return Recipe(
            recipe_values.strategy(self.method, self.shared, own, self.label, based=self.base is not None),
            self.rules,
            recipes.scope(self.scope),
            self.seed,
            self.allow_nan,
            tuple(number for number, place in enumerate(places) if place is None),
            self.dtype,
        )


def _from_start(only: Document) -> bool:
    """Return whether all sources have the same layers, from the first."""
    ranges = {source.layers for source in only.frames[0].sources}
    return len(ranges) == 1 and all(layers is None or layers[0] == 0 for layers in ranges)


def read(place: str) -> RecipeFile:
    """Read the recipe file at ``place``; raises :class:`NotFoundError` and :class:`UsageError`."""
    try:
        data = Path(place).read_bytes()
    except OSError as error:
        raise NotFoundError(f"cannot read the recipe {place}: {error.strerror}") from error
    return load(data, place)


def load(data: bytes, label: str) -> RecipeFile:
    """Parse the YAML file called ``label``; raises :class:`UsageError` that names file and key."""
    return of_bodies(yaml_documents.parsed(data, label), label)


def of_bodies(bodies: Sequence[Mapping[str, Any]], label: str) -> RecipeFile:
    """Return the recipe of parsed documents; raises :class:`UsageError` that names ``label`` and key."""
    yaml_documents.check_plain(list(bodies), label)
    recipe_keys.check(bodies, label)
    documents = tuple(recipe_document.parse(body, label) for body in bodies)
    last = documents[-1]
    first = last.frames[0]
    return RecipeFile(
        label,
        last.method,
        tuple(source.model for source in first.inputs),
        None if last.method in PAIRS else last.base,
        first.shared,
        tuple(source.parameters for source in first.inputs),
        last.rules,
        last.scope,
        last.seed,
        last.allow_nan,
        last.dtype,
        tuple(dict.fromkeys(note for one in documents for note in one.notes)),
        documents,
        tuple(bodies),
    )
