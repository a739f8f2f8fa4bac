"""The models that a recipe names: ``REVISION``, or ``REVISION:PATH`` where it has several.

``MODEL+ADAPTER`` is a model with an adapter folded into it, unless that is the name of a branch or a path.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from theta.errors import NotFoundError, UsageError
from theta.merging.documents import model_references
from theta.merging.documents.model_files import BESIDE, INDEX, ModelFiles
from theta.merging.documents.model_references import ModelReference
from theta.porcelain.compose import adapter_places
from theta.porcelain.workspace.checkpoints import by_model
from theta.porcelain.workspace.session import Session
from theta.store.format.manifest import Manifest

_MOST_TEXT: Final = 1 << 28
_MOST_PLUS: Final = 8
"""Plus signs in a name, at each of which the adapter may begin."""
_SOME: Final = 3


def opened(session: Session, name: str, label: str) -> ModelFiles:
    """Return the model that ``name`` means, called ``label``.

    Raises :class:`NotFoundError` and :class:`UsageError`.
    """
    commit, _, path = canonical(session, name).partition(":")
    found = session.at(commit).manifests
    paths = _model(label, found, path.strip("/"))
    folder = _folder(min(paths))
    manifests = {path: found[path] for path in sorted(paths)}
    return ModelFiles(label, folder, manifests, _texts(session, commit, folder))


def in_folder(session: Session, revision: str, folder: str) -> ModelFiles | None:
    """Return the model that commit ``revision`` has in ``folder``; None unless it is one."""
    found = _candidates(session.at(revision).manifests, lambda path: _folder(path) == folder)
    if len(found) != 1:
        return None
    manifests = {path: session.at(revision).manifests[path] for path in sorted(next(iter(found.values())))}
    return ModelFiles(revision, folder, manifests, _texts(session, revision, folder))


def _model(name: str, found: Mapping[str, Manifest], path: str) -> frozenset[str]:
    """Return the files of the one model at ``path``, which is a file, a folder, or empty for all."""
    if path in found:
        return by_model(found)[min(key for key, files in by_model(found).items() if path in files)]
    models = _candidates(found, lambda one: not path or one.startswith(f"{path}/"))
    if not models:
        raise NotFoundError(f"{name} has no model", hint="name one as REVISION:PATH")
    if len(models) > 1:
        some = ", ".join(sorted(models)[:_SOME])
        raise UsageError(f"{name} has {len(models)} models: {some}", hint="name one as REVISION:PATH")
    return next(iter(models.values()))


def _candidates(found: Mapping[str, Manifest], fits: Any) -> dict[str, frozenset[str]]:
    """Return the models among the checkpoints whose paths fit, without adapters."""
    paths = [path for path, manifest in found.items() if fits(path) and not is_adapter(manifest)]
    return by_model(paths)


def is_adapter(manifest: Manifest) -> bool:
    """Return whether a checkpoint has factors of an adapter."""
    return any(".lora_" in line.name for line in manifest.lines)


def _folder(path: str) -> str:
    folder, slash, _ = path.rpartition("/")
    return folder + slash


def _texts(session: Session, commit: str, folder: str) -> dict[str, bytes]:
    """Return the files in ``folder`` that say something of the model."""
    tree = session.repo.tree_of(commit)
    entry = tree.get(folder.rstrip("/")) if folder else None
    inside = entry.tree if entry is not None else tree
    found: dict[str, bytes] = {}
    for one in inside or ():
        if one.is_file and (one.name in BESIDE or one.name.endswith(INDEX)):
            found[one.name] = session.objects.text(one.id, _MOST_TEXT)
    return found


# -- in documents ----------------------------------------------------------------------------


def pinned(session: Session, body: Mapping[str, Any], label: str, results: Iterable[str]) -> dict[str, Any]:
    """Return a document with the id of a commit in place of each revision; ``results`` are none."""
    known = frozenset(results)

    def named(one: ModelReference) -> object:
        found = resolved(session, one, known)
        return found.base if found.adapter is None else {"model": found.base, "lora": found.adapter}

    return model_references.replaced(body, label, named)


def resolved(session: Session, one: ModelReference, results: Collection[str] = ()) -> ModelReference:
    """Return a reference with the ids of commits, and its adapter by itself.

    Raises :class:`NotFoundError`, and :class:`UsageError` for a name that can be read in several ways.
    """
    base, adapter = (one.base, one.adapter) if one.adapter is not None else _split(session, one.base, results)
    found = base if base in results else canonical(session, base)
    if adapter is None:
        return ModelReference(found)
    place = _adapter(session, base, adapter, results)
    if place is None:
        raise NotFoundError(
            f"{base}+{adapter}: there is no adapter {adapter}",
            hint="name one as REVISION, REVISION:FOLDER, or a folder beside the model",
        )
    return ModelReference(found, place)


def has_adapter(session: Session, name: str) -> bool:
    """Return whether ``name`` is a model with an adapter."""
    return _split(session, name, ())[1] is not None


def _split(session: Session, name: str, results: Collection[str]) -> tuple[str, str | None]:
    """Return the model and the adapter in ``name``; no adapter where the whole is a model."""
    if "+" not in name or name in results or _is_there(session, name):
        return name, None
    places = [at for at, letter in enumerate(name) if letter == "+"][: _MOST_PLUS + 1]
    if len(places) > _MOST_PLUS:
        raise UsageError(f"{name[:60]!r}... has more than {_MOST_PLUS} plus signs")
    pairs = [(name[:at], name[at + 1 :]) for at in places]
    based = [pair for pair in pairs if pair[0] in results or _is_there(session, pair[0])]
    whole = [pair for pair in based if _adapter(session, *pair, results) is not None]
    if len(whole) > 1:
        raise UsageError(f"{name} can be read in several ways", hint="{model: REVISION, lora: ADAPTER}")
    return next(iter([*whole, *based]), (name, None))


def _is_there(session: Session, name: str) -> bool:
    revision, _, path = name.partition(":")
    commit = session.repo.commit_of(revision)
    inside = path.strip("/")
    return commit is not None and (not inside or session.repo.tree_of(commit).get(inside) is not None)


def _adapter(session: Session, base: str, adapter: str, results: Collection[str]) -> str | None:
    beside = "HEAD" if base in results else base.partition(":")[0]
    return adapter_places.located(session, adapter, session.repo.resolve(f"{beside}^{{commit}}"))


def canonical(session: Session, name: str) -> str:
    """Return ``name`` with the id of its commit."""
    revision, colon, path = name.partition(":")
    session.repo.resolve(revision)
    return session.repo.resolve(f"{revision}^{{commit}}") + colon + path
