"""The models that a recipe names: ``REVISION``, or ``REVISION:PATH`` where it has several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from theta.errors import NotFoundError, UsageError
from theta.git.object_values import MODE_BLOB
from theta.merging.documents.model_files import BESIDE, INDEX, ModelFiles
from theta.merging.documents.tokenizer_keys import BASE, UNION
from theta.porcelain.workspace.checkpoints import by_model
from theta.porcelain.workspace.session import Session
from theta.store.format.manifest import Manifest

_MOST_TEXT: Final = 1 << 28
_NAMED: Final = ("model", "base_model", "tokenizer_source", "source")
"""The keys whose values are models, wherever they stand in a document, but in these:"""
_OTHERS: Final = ("rules", "parameters")
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
        if (
            one.is_file
            and one.mode & MODE_BLOB == MODE_BLOB
            and (one.name in BESIDE or one.name.endswith(INDEX))
        ):
            found[one.name] = session.objects.text(one.id, _MOST_TEXT)
    return found


# -- in documents ----------------------------------------------------------------------------


def pinned(session: Session, body: Mapping[str, Any], results: Iterable[str]) -> dict[str, Any]:
    """Return a document with the id of a commit in place of each revision; ``results`` are none."""
    return {key: _pinned(session, key, value, frozenset(results)) for key, value in body.items()}


def _pinned(session: Session, key: str, value: Any, results: frozenset[str]) -> Any:
    if key in _OTHERS:
        return value
    if isinstance(value, dict):
        return {inner: _pinned(session, inner, one, results) for inner, one in value.items()}
    if isinstance(value, list):
        return [_pinned(session, "", one, results) for one in value]
    is_word = key in _NAMED[2:] and value in (UNION, BASE)
    if key not in _NAMED or not isinstance(value, str) or value in results or is_word:
        return value
    return canonical(session, value)


def canonical(session: Session, name: str) -> str:
    """Return ``name`` with the id of its commit."""
    revision, colon, path = name.partition(":")
    session.repo.resolve(revision)
    return session.repo.resolve(f"{revision}^{{commit}}") + colon + path
