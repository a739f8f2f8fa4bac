"""Random histories of checkpoints, made in memory, and what the three-way rule says of them.

A *world* is what one commit holds: files by a key that a rename does not change.  The oracle works
on these dictionaries alone; the repository is written through theta's store.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import pygit2

from tests.support import Repo, make_model
from theta.formats.layout import BytesSource
from theta.git import commit_graph
from theta.git.object_values import MODE_BLOB, MODE_TREE
from theta.git.repository import STORES
from theta.porcelain.workspace.session import Session
from theta.store import closure
from theta.store.files import file_scan
from theta.store.format.manifest import Manifest
from theta.store.odb.packs import PackWriter
from theta.store.write.snapshot import Snapshot

Tensor = tuple[str, tuple[int, ...], bytes]
"""dtype (as numpy spells it), shape, raw bytes: equal if and only if the values are."""

ATTRIBUTES: Final = (
    "*.safetensors filter=theta diff=theta -text\n"
    ".theta/** -text -diff -merge -delta -filter linguist-generated\n"
)
KINDS: Final = ("<f4", "<f2", "<i8", "|u1")
SHAPES: Final = ((4,), (2, 3), (1,), (), (0, 4), (5, 2), (40, 30))


@dataclass(frozen=True)
class File:
    """One checkpoint: where it is, its tensors, its metadata and the name of its store."""

    path: str
    tensors: Mapping[str, Tensor]
    metadata: tuple[tuple[str, str], ...] = ()
    store: str = ""
    manifest: Manifest | None = field(default=None, compare=False, repr=False)


World = dict[str, File]
T = TypeVar("T")


@dataclass
class Dice:
    """All choices of one random history."""

    random: random.Random
    serial: int = 0

    def tensor(self, like: Tensor | None = None) -> Tensor:
        """A value; often zero or a constant, so that different tensors are tied by chance."""
        kind, shape = (like[0], like[1]) if like else (self.random.choice(KINDS), self.random.choice(SHAPES))
        draw = self.random.random()
        if draw < 0.25:
            array = np.zeros(shape, kind)
        elif draw < 0.4:
            array = np.full(shape, self.random.randrange(3), kind)
        else:
            values = np.random.default_rng(self.random.randrange(1 << 32)).integers(0, 100, shape)
            array = values.astype(kind)
        return kind, shape, array.tobytes()

    def name(self, key: str) -> str:
        """A tensor name of file ``key``: neighbours, nested ones, and ones that need escaping."""
        self.serial += 1
        stem = self.random.choice(("layers.{}.w", "layers.{}", "z.{}.bias", "a/{}.q", "é {}.#", "{}"))
        return f"{key}." + stem.format(self.random.randrange(12))


def new_file(dice: Dice, key: str, path: str) -> File:
    """A checkpoint with a handful of tensors."""
    count = dice.random.randrange(3, 12)
    tensors = {dice.name(key): dice.tensor() for _ in range(count)}
    return File(path, tensors, (("format", "pt"),) if dice.random.random() < 0.5 else ())


def base_world(dice: Dice) -> World:
    """One to three checkpoints, one of them in a folder."""
    paths = ["model.safetensors", "sub/model.safetensors", "head.safetensors"]
    return {f"m{n}": new_file(dice, f"m{n}", paths[n]) for n in range(dice.random.choice((1, 1, 2, 3)))}


def edited(dice: Dice, world: World, side: str) -> World:
    """One side's work: a few steps on tensors and, more rarely, on whole files."""
    world = dict(world)
    for _ in range(dice.random.randrange(1, 4)):
        if not world:
            break
        key = dice.random.choice(sorted(world))
        step = dice.random.random()
        if step < 0.82:
            world[key] = edit_tensors(dice, key, world[key])
        elif step < 0.92:
            target = (
                dice.random.choice(("moved/", ""))
                + dice.random.choice((key, f"{key}-{side}"))
                + ".safetensors"
            )
            world[key] = replace(world[key], path=target)
        elif step < 0.96 and len(world) > 1:
            del world[key]
        else:
            extra = dice.random.choice((f"x-{side}", "x"))
            world.setdefault(extra, new_file(dice, extra, f"{extra}.safetensors"))
    return world


def edit_tensors(dice: Dice, key: str, file: File) -> File:
    """Change, add, delete, rename or retie a tensor, or change the metadata."""
    tensors = dict(file.tensors)
    name = dice.random.choice(sorted(tensors)) if tensors else ""
    step = dice.random.choice(
        ("change", "change", "change", "tie", "add", "delete", "rename", "reshape", "meta")
    )
    if step == "meta":
        metadata = dict(file.metadata) | {dice.random.choice("ab"): dice.random.choice("12")}
        return replace(file, metadata=tuple(sorted(metadata.items())))
    if step == "add" or not name:
        tensors[dice.name(key)] = dice.tensor()
    elif step == "change":
        tensors[name] = dice.tensor(tensors[name])
    elif step == "reshape":
        tensors[name] = dice.tensor()
    elif step == "tie":
        tensors[name] = tensors[dice.random.choice(sorted(tensors))]
    elif step == "rename":
        tensors[dice.name(key)] = tensors.pop(name)
    elif len(tensors) > 1:
        del tensors[name]
    return replace(file, tensors=tensors)


# -- the oracle -------------------------------------------------------------------------------

Rule = Callable[[str, Tensor | None, Tensor | None, Tensor | None], Tensor | None]


class ConflictError(Exception):
    """Both sides changed the same thing in different ways."""


def three_way(base: T, ours: T, theirs: T) -> T:
    """Git's rule for anything that can be compared; raises :class:`ConflictError`."""
    if ours == theirs or theirs == base:
        return ours
    if ours == base:
        return theirs
    raise ConflictError


def merged_tensors(base: File | None, ours: File, theirs: File, rule: Rule | None) -> dict[str, Tensor]:
    """The tensors of the merged file; conflicts are settled by ``rule``, or raised."""
    sides = [file.tensors if file else {} for file in (base, ours, theirs)]
    found: dict[str, Tensor] = {}
    for name in set().union(*sides):
        before, left, right = (side.get(name) for side in sides)
        try:
            value = three_way(before, left, right)
        except ConflictError:
            if rule is None:
                raise
            value = rule(name, before, left, right)
        if value is not None:
            found[name] = value
    return found


@dataclass
class Expected:
    """The result that a merge must have: tensors by path, or a conflict in ``tensors`` or ``paths``."""

    files: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    conflict: bool = False
    structural: bool = False
    """Files were renamed, added twice or deleted: git's rename detection may see it otherwise."""


def expected(base: World, ours: World, theirs: World, rule: Rule | None = None) -> Expected:
    """The three-way rule on whole worlds."""
    result = Expected()
    for key in base.keys() | ours.keys() | theirs.keys():
        sides = base.get(key), ours.get(key), theirs.get(key)
        result.structural |= len({side.path if side else None for side in sides}) > 1
        try:
            _merge_file(result, *sides, rule)
        except ConflictError:
            result.conflict = True
    return result


def _merge_file(
    result: Expected, base: File | None, ours: File | None, theirs: File | None, rule: Rule | None
) -> None:
    if ours is None or theirs is None:
        kept = three_way(base, ours, theirs)
        if kept is not None:
            result.files[kept.path] = dict(kept.tensors)
        return
    path = three_way(base.path if base else None, ours.path, theirs.path)
    assert path is not None
    result.files[path] = merged_tensors(base, ours, theirs, rule)


# -- the repository ---------------------------------------------------------------------------


class History:
    """A repository whose commits are written without a worktree."""

    def __init__(self, place: Path) -> None:
        repo = Repo.create(place / "repo")
        repo.write(".gitattributes", ATTRIBUTES)
        self.path = repo.path
        self.session = Session.here(repo.path)
        self._scratch = place / "scratch.safetensors"
        self._attributes = self.session.repo.write_blob(ATTRIBUTES.encode())

    def commit(self, pack: PackWriter, world: World, parents: list[str], before: World) -> tuple[str, World]:
        """Commit ``world``; return the commit's id and the world with its stores named."""
        named: World = {}
        manifests: dict[str, Manifest] = {}
        for key, file in world.items():
            store = before[key].store if key in before else f"{file.path.replace('/', '%2F')}"
            named[key] = replace(file, store=store)
            manifests[file.path] = self._store(pack, named[key], before.get(key))
            named[key] = replace(named[key], manifest=manifests[file.path])
        entries = {".gitattributes": (self._attributes, MODE_BLOB)}
        for path, manifest in manifests.items():
            entries[path] = (pack.blob(manifest.data, text=True), MODE_BLOB)
        stores = closure.stores_tree(pack, manifests.values())
        if stores:
            entries[STORES] = (stores, MODE_TREE)
        return self._commit(_tree(pack, entries), parents), named

    def _store(self, pack: PackWriter, file: File, before: File | None) -> Manifest:
        arrays = {
            n: np.frombuffer(raw, kind).reshape(shape) for n, (kind, shape, raw) in file.tensors.items()
        }
        make_model(self._scratch, arrays, dict(file.metadata) if file.metadata else None)
        source = BytesSource(self._scratch.read_bytes())
        found = file_scan.scan(source, None, None)
        bases = [before.manifest] if before and before.manifest else []
        return Snapshot(self.session.objects, pack, bases).store(source, found, file.store, None).manifest

    def _commit(self, tree: str, parents: list[str]) -> str:
        who = pygit2.Signature("Ada Tester", "ada@example.com", 1112911993, 0)
        rows = [f"tree {tree}", *(f"parent {parent}" for parent in parents)]
        rows += [f"{role} {who.name} <{who.email}> {who.time} +0000" for role in ("author", "committer")]
        data = ("\n".join(rows) + "\n\nstep\n").encode()
        return commit_graph.write_commit(self.session.repo, data)


def _tree(pack: PackWriter, entries: Mapping[str, tuple[str, int]]) -> str:
    """Write nested trees from full paths."""
    here: dict[str, tuple[str, int]] = {}
    below: dict[str, dict[str, tuple[str, int]]] = {}
    for path, entry in entries.items():
        head, _, rest = path.partition("/")
        if rest:
            below.setdefault(head, {})[rest] = entry
        else:
            here[head] = entry
    here |= {name: (_tree(pack, children), MODE_TREE) for name, children in below.items()}
    return pack.tree((name, mode, oid) for name, (oid, mode) in here.items())
