"""The versions of a checkpoint that are merged: base, ours and theirs.

Git gives them for most files.  It does not if one branch resharded a model: git sees deleted and added
files.  Here each file of the resharded version is merged with the same tensors of the other versions,
whichever file these have them in.  So no tensor moves, and the skeletons stay valid.  Tensors that only
the other branch has go to the last file.

Histories that criss-cross have several merge bases.  Git's merge-ort merges these first and uses the
result, with its conflicts, as the base.  This module does the same tensor by tensor.  If the merge bases
conflict in a tensor, the base is a version that equals neither side, so that the sides conflict too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from theta.errors import UsageError
from theta.git.commit_graph import merge_bases
from theta.merging import result_file
from theta.merging.adapters import scales
from theta.merging.documents.model_files import VOCABULARIES
from theta.merging.states import WholeModel, same
from theta.porcelain.workspace.checkpoints import EMPTY, Checkpoints, by_model, is_shard
from theta.porcelain.workspace.session import Session
from theta.store.format.manifest import Line, Manifest
from theta.store.odb.objects import Objects
from theta.store.odb.packs import PackWriter

Stages = dict[int, str]
"""Stage -> blob id of one path; 0 is merged, 1 base, 2 ours, 3 theirs."""

Three = tuple[Manifest | None, Manifest | None, Manifest | None]

MOST_TEXT: Final = 64 << 20
"""Bytes of a file of text beside a checkpoint; the tokenizer of Gemma 3, with 262,144 tokens, has 33 MB."""


class Versions:
    """The checkpoints of the commits that are merged, found by store because paths may differ.

    Args:
        session: the repository.
        base: the base commit.
        ours: our commit.
        theirs: their commit.
        chosen: the user chose ``base``; it replaces stage 1 of the index.
        crossing: all merge bases, if there are several.
    """

    def __init__(
        self,
        session: Session,
        base: str | None,
        ours: str | None,
        theirs: str | None,
        *,
        chosen: bool = False,
        crossing: Sequence[str] = (),
    ) -> None:
        self.session = session
        self.chosen_base = base if chosen and base else ""
        self._chosen = chosen
        self._crossing = list(crossing)
        self._commits = (ours, theirs)
        self._before = base if len(self._crossing) < 2 else None
        self.merged_text: Callable[[str], bytes | None] = lambda _: None
        """Returns the content that a file has in the merge so far; None for one in conflict."""
        session.expect_trees(filter(None, (base, ours, theirs, *crossing)))
        self.trees = tuple(session.at(one) if one else EMPTY for one in (base, ours, theirs))
        """The checkpoints of base, ours and theirs."""

    def in_base(self, store: str) -> Manifest | None:
        """Return the checkpoint of the base commit with this store."""
        return self.trees[0].by_store.get(store)

    def is_unmoved(self, path: str, stages: Stages) -> bool:
        """Return whether the base has the file of stage 1 at ``path``, so that neither side renamed it."""
        return 1 in stages and self.trees[0].oid(path) == stages[1]

    def of(self, stages: Stages) -> Three:
        """Return base, ours and theirs of a path with ``stages``.

        If git merged the path (stage 0), they are looked up in the commits by their store.
        """
        if 0 in stages:
            merged = self.session.manifest_or_none(stages[0])
            if merged is None:
                return None, None, None
            _, ours, theirs = (side.by_store.get(merged.store) for side in self.trees)
            return self._base(None, ours, theirs), ours, theirs
        base, ours, theirs = (
            self.session.manifest_or_none(stages[n]) if n in stages else None for n in (1, 2, 3)
        )
        return self._base(base, ours, theirs), ours, theirs

    @property
    def is_known(self) -> bool:
        """Whether the commits of both sides are known."""
        return None not in self._commits

    def configurations(self, path: str, sides: Sequence[Manifest]) -> list[bytes | None]:
        """Return what each side has in the configuration beside the adapter at ``path``; [] if it is none."""
        if not any(".lora_" in line.name for side in sides for line in side.lines):
            return []
        return self.texts(path, scales.CONFIG)[1:]

    def vocabulary(self, path: str) -> str | None:
        """Return the name of the file with the tokens of the checkpoint at ``path``, if versions differ."""
        for name in VOCABULARIES:
            base, *sides = self._ids(path, name)
            if None not in sides:
                return name if len({base or sides[0], *sides}) > 1 else None
        return None

    def changed_vocabulary(self, path: str) -> tuple[bool, bool]:
        """Return whether ours, and theirs, changed the file with the tokens of the checkpoint at ``path``."""
        base, ours, theirs = self._ids(path, self.vocabulary(path) or VOCABULARIES[0])
        return ours != base, theirs != base

    def texts(self, path: str, name: str) -> list[bytes | None]:
        """Return what base, ours and theirs have in the file ``name`` beside the checkpoint at ``path``.

        Raises :class:`UsageError` as :func:`read_text` does.
        """
        place = in_folder(path, name)
        return [None if oid is None else read_text(self.session, oid, place) for oid in self._ids(path, name)]

    def homes(self, path: str) -> list[str]:
        """Return where base, ours and theirs have the checkpoint that the result has at ``path``."""
        return [self._home(tree, path) for tree in self.trees]

    def _home(self, tree: Checkpoints, path: str) -> str:
        if path in tree:
            return path
        found = (side.manifest(path) for side in self.trees[1:])  # the side that moved it there
        store = next((manifest.store for manifest in found if manifest is not None), "")
        return home(tree, path, store)

    def _ids(self, path: str, name: str) -> list[str | None]:
        """Return the ids of the file ``name`` beside the checkpoint at ``path`` in base, ours and theirs.

        Several bases have none unless they agree.
        """
        bases = self._crossing if self._before is None else [self._before]
        told = {self._id(one, path, name) for one in bases}
        return [told.pop() if len(told) == 1 else None, *(self._id(one, path, name) for one in self._commits)]

    def _id(self, commit: str | None, path: str, name: str) -> str | None:
        if commit is None:
            return None
        own = self._home(self.session.at(commit), path)
        return _entry(self.session, commit, in_folder(own, name))

    def model(self, path: str) -> WholeModel | None:
        """Return what reads the model whose shard is at ``path``; None when it is no shard."""
        return whole_model(self.trees, path)

    def recut(self) -> list[Recut]:
        """Return the models that ours or theirs resharded; writes the skeletons that their merges read."""
        found: list[Recut] = []
        models = [tree.models() for tree in self.trees]
        for name in sorted(set().union(*models)):
            paths = [files.get(name, frozenset()) for files in models]
            at = _newly_cut(*paths)
            if at is not None:
                sides = [_only(tree.manifests, own) for tree, own in zip(self.trees, paths, strict=True)]
                with self.session.objects.writing(keep=True) as pack:
                    targets = _targets(self.session.objects, pack, sides, at)
                if targets:
                    gone = frozenset().union(*paths) - targets.keys()
                    found.append(Recut(targets, gone, self.model(min(targets))))
        return found

    def _base(
        self, found: Manifest | None, ours: Manifest | None, theirs: Manifest | None
    ) -> Manifest | None:
        """Return the base version; ``found`` is the manifest of stage 1."""
        anchor = ours or theirs
        if anchor is None or (found is not None and not self._chosen and len(self._crossing) < 2):
            return found
        if len(self._crossing) > 1:
            return _crossed(self.session, self._crossing, ours, theirs)
        return self.in_base(anchor.store)


def configuration(session: Session, commit: str | None, path: str, store: str = "") -> bytes | None:
    """Return the ``adapter_config.json`` that :func:`neighbour` finds."""
    return neighbour(session, commit, path, scales.CONFIG, store)


def neighbour(session: Session, commit: str | None, path: str, name: str, store: str = "") -> bytes | None:
    """Return what ``commit`` has in the file ``name`` beside a checkpoint, or None.

    The checkpoint is at ``path``, or has ``store`` if another version has it there.
    Raises :class:`UsageError` as :func:`read_text` does.
    """
    own = home(session.at(commit), path, store) if commit and store else path
    oid = _entry(session, commit, in_folder(own, name))
    return None if oid is None else read_text(session, oid, in_folder(path, name))


def read_text(session: Session, oid: str, place: str) -> bytes:
    """Return the bytes of blob ``oid``, which an error names ``place``.

    Raises :class:`UsageError` for more than :data:`MOST_TEXT` bytes, before they are read.
    """
    size = session.objects.size(oid)
    if size > MOST_TEXT:
        raise UsageError(f"{place} has {size} bytes, and more than {MOST_TEXT} of a text are not read")
    return session.repo.read_blob(oid)


def home(checkpoints: Checkpoints, path: str, store: str) -> str:
    """Return where one version has the checkpoint with ``store`` that another one has at ``path``."""
    return path if path in checkpoints else checkpoints.of_store(store) or path


def _entry(session: Session, commit: str | None, path: str) -> str | None:
    """Return the id of the file that ``commit`` has at ``path``; None for anything else."""
    entry = session.repo.tree_of(commit).get(path) if commit else None
    return entry.id if entry is not None and entry.is_file else None


def whole_model(trees: Sequence[Checkpoints], path: str) -> WholeModel | None:
    """Return what reads the model whose shard is at ``path`` in each of ``trees``; None for other paths."""
    if not is_shard(path):
        return None

    (name,) = by_model([path])

    def lines(tree: Checkpoints) -> dict[str, Line]:
        files = _only(tree.manifests, tree.models().get(name, ()))
        return {line.name: line for manifest in files.values() for line in manifest.lines}

    return lambda: [lines(tree) for tree in trees]


def beside(path: str) -> str:
    """Return the path of the configuration of the adapter at ``path``."""
    return in_folder(path, scales.CONFIG)


def in_folder(path: str, name: str) -> str:
    """Return the path of the file ``name`` in the folder of ``path``."""
    folder, slash, _ = path.rpartition("/")
    return f"{folder}{slash}{name}"


# -- a resharded model ---------------------------------------------------------------------

Manifests = Mapping[str, Manifest]
"""Path -> manifest of each file of one version of a model."""

BothAndBase = tuple[Manifest, Manifest, Manifest]
"""Base, ours and theirs."""


@dataclass(frozen=True)
class Recut:
    """A resharded model.

    Attributes:
        targets: base, ours and theirs for each file of the result.
        gone: the files that the result has no more.
        whole: returns the tensors of all files of base, ours and theirs.
    """

    targets: Mapping[str, BothAndBase]
    gone: frozenset[str]
    whole: WholeModel | None

    @property
    def paths(self) -> set[str]:
        """The paths of the files of all versions."""
        return self.targets.keys() | self.gone


def _newly_cut(base: frozenset[str], ours: frozenset[str], theirs: frozenset[str]) -> int | None:
    """Return the version whose files the result has, 1 for ours, 2 for theirs; None if neither."""
    if not (base and ours and theirs) or base == ours == theirs:
        return None
    if ours == base:
        return 2
    return 1 if theirs in (base, ours) else None  # both resharded it differently: a conflict


def _only(files: Manifests, paths: Iterable[str]) -> Manifests:
    return {path: files[path] for path in sorted(paths) if path in files}


def _targets(
    objects: Objects, pack: PackWriter, sides: Sequence[Manifests], at: int
) -> dict[str, BothAndBase]:
    """Return path -> base, ours and theirs for the files of version ``at``.

    Empty if the files of a version disagree, or the formats differ.
    """
    joined = [tensors for files in sides if (tensors := _joined_files(files.values())) is not None]
    if len(joined) < len(sides) or len({each.format for files in sides for each in files.values()}) != 1:
        return {}
    files = sides[at]
    names = {path: {line.name for line in manifest.lines} for path, manifest in files.items()}
    names[max(files)] |= set().union(*joined) - set().union(*names.values())
    found: dict[str, BothAndBase] = {}
    for path, manifest in files.items():
        base, ours, theirs = (_part(objects, pack, manifest, lines, names[path]) for lines in joined)
        if base is None or ours is None or theirs is None:
            return {}
        found[path] = (base, ours, theirs)
    return found


def _joined_files(manifests: Iterable[Manifest]) -> dict[str, Line] | None:
    """Return the tensors of all files; None when two files disagree or there are none."""
    found: dict[str, Line] = {}
    for manifest in manifests:
        for line in manifest.lines:
            if not found.setdefault(line.name, line).same_value(line):
                return None
    return found or None


def _part(
    objects: Objects, pack: PackWriter, like: Manifest, lines: Mapping[str, Line], names: set[str]
) -> Manifest | None:
    """Return manifest ``like`` with the tensors ``names`` of ``lines``; None if its format cannot."""
    chosen = tuple(lines[name] for name in sorted(names & lines.keys()))
    skeleton = result_file.laid_out(objects, pack, like, chosen)
    return replace(like, skeleton=skeleton, lines=chosen, groups=()) if skeleton else None


# -- several merge bases -------------------------------------------------------------------

Candidates = tuple[Line | None, ...]
"""The version of a tensor in the base, or all versions in conflict; None for an absent tensor."""


def _crossed(
    session: Session, commits: Sequence[str], ours: Manifest | None, theirs: Manifest | None
) -> Manifest | None:
    """Return the base of ``ours`` and ``theirs``, whose merge bases are ``commits``; None if none has it."""
    anchor = ours or theirs
    store = anchor.store if anchor else ""
    sides = (session.at(commit).by_store.get(store) for commit in commits)
    found = [manifest for manifest in sides if manifest is not None]
    if len(found) < 2:
        return found[0] if found else None
    lines = (
        _base_line(
            candidates, ours.by_name.get(name) if ours else None, theirs.by_name.get(name) if theirs else None
        )
        for name, candidates in sorted(_virtual(session, commits, store).items())
    )
    skeletons = [manifest.skeleton for manifest in found]
    taken = {side.skeleton for side in (ours, theirs) if side}
    skeleton = next((oid for oid in skeletons if oid not in taken), skeletons[0])
    return replace(found[0], skeleton=skeleton, lines=tuple(line for line in lines if line), groups=())


def _base_line(candidates: Candidates, ours: Line | None, theirs: Line | None) -> Line | None:
    if len(candidates) == 1:
        return candidates[0]
    return next((line for line in candidates if not (same(line, ours) or same(line, theirs))), None)


def _virtual(session: Session, commits: Sequence[str], store: str) -> dict[str, Candidates]:
    """Merge ``commits`` and return name -> candidates of each tensor of ``store``."""
    merged = _alone(session, commits[0], store) if commits else {}
    for other in commits[1:]:
        before = _virtual(session, merge_bases(session.repo, commits[0], other), store)
        merged = _joined_candidates(before, merged, _alone(session, other, store))
    return merged


def _alone(session: Session, commit: str, store: str) -> dict[str, Candidates]:
    manifest = session.at(commit).by_store.get(store)
    return {line.name: (line,) for line in manifest.lines} if manifest else {}


def _joined_candidates(
    before: Mapping[str, Candidates], ours: Mapping[str, Candidates], theirs: Mapping[str, Candidates]
) -> dict[str, Candidates]:
    found: dict[str, Candidates] = {}
    for name in ours.keys() | theirs.keys():
        base, left, right = (side.get(name, (None,)) for side in (before, ours, theirs))
        if _equal(left, right) or _equal(right, base):
            found[name] = left
        else:
            found[name] = right if _equal(left, base) else (*left, *right)
    return found


def _equal(one: Candidates, other: Candidates) -> bool:
    return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
