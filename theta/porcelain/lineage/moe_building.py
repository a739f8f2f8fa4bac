"""``theta build-moe``: a mixture of experts out of versions of a model."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from theta import _fs, _room
from theta._numpy import np
from theta.dtypes import DTYPES, numpy_dtype
from theta.errors import NotFoundError, UsageError
from theta.merging.mixtures import kinds
from theta.merging.mixtures.building import ExpertMixture
from theta.porcelain.drive import renewing
from theta.porcelain.lineage import averaging, told_commit
from theta.porcelain.merge import dry_run
from theta.porcelain.merge.versions import in_folder, neighbour
from theta.porcelain.stage.saved_tree import File, StoredFile
from theta.porcelain.tensors import converting, sources, tied_weights
from theta.porcelain.workspace.session import Session
from theta.store.format.manifest import Manifest
from theta.store.read.coming_file import ComingFile
from theta.store.read.reassembly import Restorer

if TYPE_CHECKING:
    from numpy.typing import NDArray

TRAILER: Final = "Theta-Build-Moe"
RANDOM: Final = "random"
_CONFIG: Final = "config.json"
_COMMITTED: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?:.+")
"""The name of gates in a commit; a file of a user who builds it again is none."""


@dataclass(frozen=True)
class MoeRequest:
    """A mixture of experts that is asked for.

    Attributes:
        experts: the revisions whose MLPs become experts, in order.
        base: the revision of embeddings, attention and norms.
        path: the checkpoint; "" for the only one.
        kind: mixtral, qwen2_moe or qwen3_moe; "" for that of the base's family.
        shared: the revision of the shared expert; "" for none.
        gates: ``random``, or the file or REV:PATH with a vector for each expert and layer.
        seed: the seed of random gates.
        chosen: how many experts work on each token.
    """

    experts: Sequence[str]
    base: str = "HEAD"
    path: str = ""
    kind: str = ""
    shared: str = ""
    gates: str = RANDOM
    seed: int = 0
    chosen: int = 2


@dataclass(frozen=True)
class MoePlan:
    """A mixture of experts that can be built.

    Attributes:
        path: the checkpoint.
        mixture: what is built.
        config: the text of its ``config.json``.
        trailer: the line from which :func:`again` builds it; "" if its gates are in no commit.
    """

    path: str
    mixture: ExpertMixture
    config: bytes
    trailer: str


def plan(session: Session, request: MoeRequest) -> MoePlan:
    """Find the models and check that they fit together.

    Raises:
        NotFoundError: a revision, a checkpoint or the gates are not there.
        UsageError: they do not make a mixture of experts.
    """
    base, *experts = (_commit(session, one) for one in (request.base, *request.experts))
    path = request.path or _only(session, base)
    config = tied_weights.beside(session, path, base)
    found = kinds.kind(request.kind, config)
    if bool(request.shared) != bool(found.shared):
        raise UsageError(
            f"{found.name} has {'one' if found.shared else 'no'} shared expert", hint="--shared REV"
        )
    if not 1 <= request.chosen <= len(experts):
        raise UsageError(f"{request.chosen} of {len(experts)} experts cannot work on a token")
    shared = _commit(session, request.shared) if request.shared else ""
    mixture = ExpertMixture(
        found,
        _files(session, base, path),
        [_files(session, one, path) for one in experts],
        _files(session, shared, path) if shared else None,
        None if request.gates == RANDOM else _gates(session, request.gates),
        request.seed,
    )
    made = kinds.config(found, config, len(experts), request.chosen)
    text = json.dumps(made, indent=2, sort_keys=True) + "\n"
    words = ["--kind", found.name, "--path", path, "--experts-per-token", str(request.chosen)]
    words += ["--seed", str(request.seed)] if request.gates == RANDOM else []
    words += ["--gates", _pinned(session, request.gates)]
    words += ["--shared", shared] if shared else []
    line = f"{TRAILER}: {shlex.join([*words, '--base', base, *experts])}" if words[-1] else ""
    return MoePlan(path, mixture, text.encode(), line)


def _commit(session: Session, revision: str) -> str:
    found = session.repo.commit_of(revision)
    if found is None:
        raise NotFoundError(f"no such commit: {revision}")
    return found


def _only(session: Session, commit: str) -> str:
    names = sorted(session.at(commit).models())
    if len(names) != 1:
        raise UsageError(
            f"which checkpoint? {commit[:12]} has {', '.join(names[:3]) or 'none'}", hint="--path PATH"
        )
    return names[0]


def _files(session: Session, commit: str, path: str) -> list[Manifest]:
    """Return the files of the model at ``path``, which may be that of its shards as one file."""
    found = session.at(commit)
    files = [found.manifest(one) for one in sorted(found.models().get(path, {path}))]
    there = [one for one in files if one is not None]
    if not there:
        raise NotFoundError(f"{path} is no checkpoint in {commit[:12]}")
    return there


def _gates(session: Session, name: str) -> NDArray[Any]:
    """Return the vectors in a file or a committed checkpoint with one tensor."""
    with sources.opened(sources.parse(name, session.cwd), session.cwd) as model:
        if len(model.values) != 1:
            raise UsageError(f"{name} has {len(model.values)} tensors; gates are one")
        value = next(iter(model.values.values()))
        if DTYPES[value.dtype].kind != "float":
            raise UsageError(f"gates are floats, not {value.dtype}")
        flat = np.frombuffer(b"".join(value.chunks()), numpy_dtype(value.dtype))
        return flat.reshape(value.shape).astype(np.float64)


def _pinned(session: Session, gates: str) -> str:
    """Return the name of ``gates`` by which a replay finds them; "" for a file."""
    if gates == RANDOM:
        return gates
    named = sources.parse(gates, session.cwd)
    if named.revision is None:
        return ""
    return f"{_commit(session, named.revision)}:{named.path}" + (f"#{named.glob}" if named.glob else "")


# -- results ---------------------------------------------------------------------------------


def write(session: Session, found: MoePlan, out: Path, *, force: bool) -> None:
    """Write the model to a file, and ``config.json`` beside it; stores nothing in the repository."""
    if out.suffix != Path(found.path).suffix:
        raise UsageError(
            f"{out.name} needs the suffix of {found.path}", hint="'theta convert' changes formats"
        )
    beside = out.with_name(_CONFIG)
    _fs.make_dirs(out.parent)
    converting.check_places([out, beside], 0, force)
    with dry_run.rehearsal(session) as apart:
        with apart.objects.writing() as pack:
            made = found.mixture.store(apart.objects, pack, found.path)
        restorer = Restorer(apart.objects, made)
        _room.require(out.parent, restorer.size)
        with _fs.AtomicFile(out, mode=0o666, nameless=True) as file:
            restorer.write(ComingFile(file, made.skeleton, restorer.plan))
    _fs.write_atomic(beside, found.config)


def commit(session: Session, found: MoePlan, message: str = "") -> str:
    """Commit the model in place of the checkpoint, on top of HEAD, with ``config.json``; return the commit.

    Raises :class:`UsageError` if a replay could not build it, and :class:`RefusedError` if files have changes
    that are not committed.
    """
    if not found.trailer:
        raise UsageError(
            "the gates are in no commit, so nobody could build this again", hint="commit them first"
        )
    if found.path not in session.at("HEAD").manifests and len(found.mixture.base) > 1:
        raise UsageError(f"{found.path} is in shards", hint="-o FILE writes it; commit that")
    renewing.refuse_unclean(session)
    head = session.repo.resolve("HEAD")
    with session.change() as change:
        before = session.at(head).manifests.get(found.path)
        store = before.store if before is not None else found.mixture.base[0].store
        manifest = found.mixture.store(session.objects, change.pack, store)
        stored = StoredFile(change.pack.blob(manifest.data, text=True))
        change.store()
        files: dict[str, File] = {found.path: stored, in_folder(found.path, _CONFIG): found.config}
        subject = message or f"Build {found.mixture.kind.name} of {len(found.mixture.experts)} experts"
        return told_commit.write(session, change, head, files, subject, found.trailer, "build-moe")


def recorded(session: Session, oid: str) -> MoeRequest | None:
    """Return the request in the trailer of commit ``oid``; None when it built none.

    Raises :class:`UsageError` if the trailer is malformed.  Nobody has checked the names in it.
    """
    return told_commit.recorded(session, oid, TRAILER, _parsed)


def _parsed(line: str) -> MoeRequest:
    words = iter(shlex.split(line))
    given: dict[str, str] = {}
    for word in words:
        given[word] = next(words)
        if word == "--base":
            break
    if given["--gates"] != RANDOM and not _COMMITTED.fullmatch(given["--gates"]):
        raise ValueError(given["--gates"])
    return MoeRequest(
        [*words],
        given["--base"],
        given["--path"],
        given["--kind"],
        given.get("--shared", ""),
        given["--gates"],
        int(given.get("--seed", "0")),
        int(given["--experts-per-token"]),
    )


def again(session: Session, oid: str) -> bool | None:
    """Build the mixture of commit ``oid`` again and compare all; None when it built none."""
    request = recorded(session, oid)
    if request is None:
        return None
    found = plan(session, request)
    committed = session.at(oid).manifest(found.path)
    with dry_run.rehearsal(session) as apart, apart.objects.writing() as pack:
        made = found.mixture.store(apart.objects, pack, found.path)
    config = neighbour(session, oid, found.path, _CONFIG)
    same = committed is not None and made.same_value(committed) and config == found.config
    return same and averaging.changes_only(session, oid, (found.path, in_folder(found.path, _CONFIG)))
