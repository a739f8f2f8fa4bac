"""Damaged copies of what a repository stores, with the right ids, so that a reader gets to the damage."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from tests.independent.forging import FILE, Forge
from tests.independent.manifest_text import Entry, escape, parse
from tests.independent.odb import Objects
from tests.independent.tensor_trees import StoredTensor

EXTREMES = (0, 1, 2, 3, 127, 128, 255)


class StoredVersions:
    """The tensors that some commits of a repository have at ``path``, dice, and a forge there."""

    def __init__(self, repository: Path, commits: list[str], path: str, seed: int) -> None:
        self.dice = random.Random(seed)
        self.forge = Forge(repository)
        self.objects = Objects(repository)
        manifests = [parse(self.objects, self.objects.at_path(commit, path)) for commit in commits]
        self.tensors = [tensor for manifest in manifests for tensor in manifest.entries.items()]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.objects.__exit__(None, None, None)


class Mutants(StoredVersions):
    """Damaged copies of tensors."""

    def __init__(self, repository: Path, commits: list[str], path: str, seed: int) -> None:
        super().__init__(repository, commits, path, seed)
        self._entries = [(name, entry) for name, entry in self.tensors if entry.size]
        self._proofs: dict[str, str] = {}

    def make(self, count: int) -> Iterator[tuple[str, str]]:
        """Yield commits of one tensor with one damaged object, and the SHA-256 of the file without damage.

        The latter is empty where the damage may make another file that is right.
        """
        for _ in range(count):
            name, entry = self.dice.choice(self._entries)
            files = self.objects.files(entry.tree)
            contents = {key: self.objects.blob(oid, 2**24) for key, oid in files.items()}
            victim = self.dice.choice(sorted(contents))
            damaged = self._damaged(contents[victim])
            record = contents["@tensor"]
            if victim != "@tensor":
                record = record.replace(files[victim].encode(), self.forge.blob(damaged).encode())
            tree = self.forge.files(contents | {"@tensor": record, victim: damaged})
            yield self._commit(name, entry, tree)

    def _commit(self, name: str, entry: Entry, tree: str) -> tuple[str, str]:
        """Write a checkpoint of one tensor; now and then the manifest or the table is damaged, too."""
        table = f"theta skeleton 1\nextent {entry.size} {escape(name)}\n".encode()
        which = self.dice.random()
        skeleton = self.forge.files({"table.0000": self._damaged(table) if which < 0.1 else table})
        line = (
            f"    {entry.kind.name} {entry.shape} sha256:{entry.digest} {tree if which > 0.2 else entry.tree}"
        )
        text = f"theta checkpoint 1\nformat npy\nstore model.bin\nskeleton {skeleton}\n"
        manifest = f"{text}{escape(name)}\n{line}\nend {escape(name)}\n".encode()
        manifest = self._damaged(manifest) if 0.1 < which < 0.2 else manifest
        proof = "" if which < 0.2 else self._proof(entry)
        return self.forge.manifest(manifest, {"x": (FILE, self.forge.blob(b""))}), proof

    def _proof(self, entry: Entry) -> str:
        """Return the SHA-256 of a tensor without damage."""
        if entry.tree not in self._proofs:
            found = hashlib.sha256()
            for raw in StoredTensor(self.objects, entry).values():
                found.update(raw)
            self._proofs[entry.tree] = found.hexdigest()
        return self._proofs[entry.tree]

    def _damaged(self, data: bytes) -> bytes:
        """Change, insert, remove or repeat some bytes, more often near the beginning."""
        changed = bytearray(data)
        for _ in range(self.dice.choice((1, 1, 1, 2, 4))):
            reach = min(len(changed), self.dice.choice((8, 32, 128, 10**7)))
            at = self.dice.randrange(reach) if reach else 0
            what = self.dice.randrange(6)
            if what == 0:
                changed[at : at + 1] = bytes([self.dice.randrange(256)])
            elif what == 1:
                changed[at : at + 1] = bytes([self.dice.choice(EXTREMES)])
            elif what == 2:
                changed[at : at + 4] = b"\xff" * 4
            elif what == 3:
                del changed[at : at + self.dice.choice((1, 4, 10**7))]
            elif what == 4:
                changed[at:at] = self.dice.randbytes(self.dice.choice((1, 4, 40)))
            else:
                changed[at : at + 8] = changed[at : at + 8] * 2
        return bytes(changed)
