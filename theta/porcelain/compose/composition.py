"""Composing the model of a recipe, and the tree that has it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from theta.errors import PointerError, UsageError
from theta.formats import sharded
from theta.git import commit_graph, lfs
from theta.merging import result_file
from theta.merging.documents import chat_templates, composing, result_texts, stacks, vocabularies
from theta.merging.documents.composing import Composed
from theta.merging.documents.model_files import CONFIG, INDEX, OF_TOKENIZER, ModelFiles
from theta.merging.documents.recipe_document import Document
from theta.merging.documents.vocabularies import Vocabulary
from theta.merging.engine import RehearsedTensor
from theta.merging.recipe_files import RecipeFile
from theta.merging.states import Conflict
from theta.merging.strategies import Strategy
from theta.porcelain.compose import recipe_models, with_adapters
from theta.porcelain.merge import in_memory, octopus
from theta.porcelain.merge.joining import How
from theta.porcelain.stage import saved_tree
from theta.porcelain.stage.saved_tree import File, StoredFile
from theta.porcelain.workspace.session import Session
from theta.progress import Progress
from theta.store.format import listings
from theta.store.format.manifest import Line, Manifest
from theta.store.odb.packs import PackWriter
from theta.store.write.snapshot import sorted_lines


@dataclass(frozen=True)
class Composition:
    """The result of a recipe.

    Attributes:
        model: its files.
        rows: path -> how each tensor was made.
        blobs: path -> id of the manifest.
    """

    model: ModelFiles
    rows: Mapping[str, Sequence[RehearsedTensor]]
    blobs: Mapping[str, str]


@dataclass
class Composer:
    """Composes the documents of a recipe, those first whose results others use.

    Attributes:
        session: the repository.
        recipe: the recipe.
        head: the commit whose files the result replaces, or None.
        progress: counts the bytes of computed tensors.
        labels: name of a model in the recipe -> its name for errors.
        doubts: what the user should know of the adapters that were folded in.
    """

    session: Session
    recipe: RecipeFile
    head: str | None
    progress: Progress | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)
    _done: dict[str, Composition] = field(default_factory=dict)
    _waiting: set[str] = field(default_factory=set)
    _folded: dict[str, ModelFiles] = field(default_factory=dict)

    def compose(self) -> Composition:
        """Return the result of the last document; raises :class:`UsageError` if another is not used."""
        found = self._composed(self.recipe.documents[-1])
        unused = [one.name for one in self.recipe.documents[:-1] if one.name not in self._done]
        if unused:
            raise UsageError(
                f"{self.recipe.label}: the result {unused[0] or 'without a name'} is used by no other",
                hint="name it, use the name as a model below, and let the wanted document be the last",
            )
        return found

    def _named(self) -> dict[str, Document]:
        return {one.name: one for one in self.recipe.documents if one.name}

    def _model(self, name: str) -> ModelFiles:
        document = self._named().get(name)
        if document is None:
            return recipe_models.opened(self.session, name, self.labels.get(name, name))
        if name in self._waiting:
            raise UsageError(f"{self.recipe.label}: {name} is made from itself")
        if name not in self._done:
            self._done[name] = self._composed(document)
        return self._done[name].model

    def _with_adapter(self, document: Document, name: str) -> ModelFiles:
        """Return the model ``name`` of a document, with its adapter if it has one."""
        one = document.adapters.get(name)
        if one is None or one.adapter is None:
            return self._model(name)
        if name not in self._folded:
            base, label = self._model(one.base), self.labels.get(name, name)
            found = with_adapters.folded(self.session, base, one.adapter, label, self.progress)
            self._folded[name] = found[0]
            self.doubts += found[1]
        return self._folded[name]

    def _composed(self, document: Document) -> Composition:
        self._waiting.add(document.name)
        models = {name: self._with_adapter(document, name) for name in document.models}
        self._waiting.discard(document.name)
        donor = models[document.models[0]]
        layout = donor
        if document is self.recipe.documents[-1] and self.head is not None:
            layout = recipe_models.in_folder(self.session, self.head, donor.folder) or donor
        wanted = stacks.arranged(document, models)
        objects = self.session.objects
        objects.expect({line.tree: line.nbytes for one in wanted for line in (*one.inputs, one.base) if line})
        words = None
        if document.tokenizer is not None:
            _refuse_pointers(models.values())
            words = vocabularies.build(document.tokenizer, models, document.base)
        with objects.writing(keep=True) as pack:
            made = composing.compose(objects, pack, document, wanted, words, self.progress)
            found = _laid_out(self.session, pack, document, models, layout, made)
        found = found if words is None else _with_tokenizer(found, words)
        texts = chat_templates.with_template(document, found.model, models)
        return replace(found, model=replace(found.model, texts=texts))


def _refuse_pointers(models: Iterable[ModelFiles]) -> None:
    """Raise :class:`PointerError` where Git LFS keeps a tokenizer: the result would be no file of its."""
    for model in models:
        for name in OF_TOKENIZER:
            if lfs.is_pointer(model.texts.get(name, b"")):
                told = f"{model.folder}{name} of {model.label} is a Git LFS pointer"
                hint = f"'git lfs untrack {name}' and 'git add --renormalize {name}' put the file into git"
                raise PointerError(f"{told}, and a recipe joins the files themselves", hint=hint)


def _laid_out(
    session: Session,
    pack: PackWriter,
    document: Document,
    models: Mapping[str, ModelFiles],
    layout: ModelFiles,
    made: Sequence[Composed],
) -> Composition:
    """Divide the tensors ``made`` into files as ``layout`` has them."""
    donor = models[document.models[0]]
    places = {one.line.name: _place(one, layout) for one in made}
    manifests: dict[str, Manifest] = {}
    rows: dict[str, list[RehearsedTensor]] = {}
    for path, like in layout.manifests.items():
        own = [one for one in made if places[one.line.name] == path]
        lines = tuple(sorted_lines([one.line for one in own]))
        manifests[path] = _manifest(session, pack, path, like, lines)
        rows[path] = [one.row for one in own]
    texts = dict(donor.texts)
    if len(manifests) > 1:
        texts |= _index(layout, donor, places, {one.line.name: one.line for one in made})
    config = _config(document, models)
    if config is not None:
        texts[CONFIG] = config
    blobs = {path: pack.blob(manifest.data, text=True) for path, manifest in manifests.items()}
    return Composition(ModelFiles(document.name, donor.folder, manifests, texts), rows, blobs)


def _with_tokenizer(found: Composition, words: Vocabulary) -> Composition:
    """Return a composition with the tokenizer of ``words``, and its number of rows in the configuration."""
    texts = {name: data for name, data in found.model.texts.items() if name not in OF_TOKENIZER}
    config = result_texts.parsed(found.model)
    if config is not None:
        result_texts.with_rows(config, words.padded)
        texts[CONFIG] = result_texts.written(config)
    return replace(found, model=replace(found.model, texts=texts | dict(words.texts)))


def _place(one: Composed, layout: ModelFiles) -> str:
    """Return the file of ``layout`` with the name of that in which the source is, or else its last."""
    if one.line.name in layout.places:
        return layout.places[one.line.name]
    name = one.place.rpartition("/")[2]
    found = (path for path in layout.manifests if path.rpartition("/")[2] == name)
    return next(found, max(layout.manifests))


def _manifest(
    session: Session, pack: PackWriter, path: str, like: Manifest, lines: tuple[Line, ...]
) -> Manifest:
    skeleton = result_file.laid_out(session.objects, pack, like, lines)
    if skeleton is None:
        raise UsageError(
            f"{path} cannot get tensors of other names or shapes: it has more than tensors",
            hint="convert it with 'theta convert' to safetensors",
        )
    return listings.write(pack, replace(like, skeleton=skeleton, lines=lines, groups=()))


def _index(
    layout: ModelFiles, donor: ModelFiles, places: Mapping[str, str], lines: Mapping[str, Line]
) -> dict[str, bytes]:
    """Return the index of a result in several files."""
    known = next((name for name in layout.texts if name.endswith(INDEX)), None)
    name = known or sharded.model_of(min(layout.manifests)).rpartition("/")[2] + INDEX
    source = layout if known else donor
    return {name: result_texts.index(places, lines, result_texts.parsed(source, name))}


def _config(document: Document, models: Mapping[str, ModelFiles]) -> bytes | None:
    """Return the configuration of the result; None when it is that of the first model, or none is there."""
    donor = models[document.models[0]]
    config = result_texts.parsed(donor)
    if config is None:
        return None
    before = result_texts.parsed(donor)
    result_texts.with_dtype(config, document.dtype)
    if document.is_sliced:
        parsed = {name: result_texts.parsed(model) for name, model in models.items()}
        origins = [(parsed[name], number) for name, number in stacks.origins(document)]
        result_texts.with_layers(config, stacks.layer_count(donor), origins)
    return None if config == before else result_texts.written(config)


def new_texts(session: Session, head: str, made: Composition) -> list[str]:
    """Return the paths of the files of text in ``made`` that the commit ``head`` has otherwise, or not."""
    texts, committed = made.model.texts, session.repo.tree_of(head)
    found = {f"{made.model.folder}{name}": session.repo.format.blob_id(data) for name, data in texts.items()}
    entries = {path: committed.get(path) for path in found}
    return sorted(path for path, entry in entries.items() if entry is None or entry.id != found[path])


# -- the tree --------------------------------------------------------------------------------


def tree(
    session: Session, pack: PackWriter, parents: Sequence[str], made: Composition
) -> tuple[str, list[str]]:
    """Write the tree of a merge of ``parents`` with the model ``made`` in it.

    Return its id, and the other files that git cannot merge; with such files no tree is made.
    """
    model = made.model
    files: dict[str, File] = {path: StoredFile(oid) for path, oid in made.blobs.items()}
    files |= {f"{model.folder}{name}": data for name, data in model.texts.items()}
    start = parents[0]
    if len(parents) > 1:
        joined = octopus.join(session, parents, _keeping(files))
        open_files = [path for path in (*joined.open_files, *joined.merged.conflicts) if path not in files]
        if open_files:
            return "", sorted(open_files)
        whole = in_memory.result_tree(session, joined.tree, joined.merged)
        start = commit_graph.unnamed_commit(session.repo, whole, parents)
    return saved_tree.write(session, pack, start, files).tree, []


def _keeping(files: Mapping[str, File]) -> How:
    """Return a ``How`` that keeps our version of the checkpoints ``files``, and settles no other."""

    def policy(_conflict: Conflict) -> Strategy:
        return Strategy("ours")

    def by_path(path: str) -> How:
        return How(policy, whole=True) if path in files else How(lambda _: None)

    return replace(by_path(""), by_path=by_path)
