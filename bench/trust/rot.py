"""Bit rot in every kind of file: theta says so or it does no harm, and what a remote has comes back."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Final

from bench.trust import looking
from bench.trust.looking import View
from bench.trust.outcome import NO_CASE, FaultError, about
from bench.trust.subjects import OnRepositories, never_a_bug
from tests.reliability.harness import FILE
from tests.support import Repo, sha256
from tests.support.faults import Faults
from tests.support.repos import describe

KINDS: Final[dict[str, tuple[str, ...]]] = {
    "packs": ("objects/pack/*.pack",),
    "indexes of packs": ("objects/pack/*.idx",),
    "other files of packs": ("objects/pack/*.rev", "objects/pack/*.bitmap", "objects/info/*"),
    "loose objects": ("objects/[0-9a-f][0-9a-f]/*",),
    "index": ("index",),
    "HEAD": ("HEAD",),
    "refs": ("refs/heads/*", "refs/remotes/*/*", "packed-refs"),
    "configuration": ("config", "info/*"),
    "reflogs": ("logs/HEAD", "logs/refs/heads/*"),
    "notes of theta": ("theta/*", "theta/*/*"),
    "worktree": (f"../{FILE}", "../.gitattributes"),
}
"""Kind -> where its files are, from the git directory."""
_OF_OBJECTS: Final = ("packs", "indexes of packs", "other files of packs", "loose objects")


class Rot(OnRepositories):
    """Damaged files."""

    name = "rot"
    title = "Bit rot in every kind of file, with repair from a remote"
    counts = "mutants"
    each = 4

    def use(self, origin: Repo, place: Path, faults: Faults) -> None:
        """Make a mirror, and a copy whose objects and refs are packed."""
        super().use(origin, place, faults)
        self.mirror = place / "mirror.git"
        origin.git("clone", "-q", "--mirror", str(origin.path), str(self.mirror))
        packed = origin.copy(place / "packed")
        packed.git("gc", "-q")
        packed.git("commit-graph", "write", "--reachable")
        self.forms = [origin, packed]

    def case(self, seed: int, number: int) -> str:
        """Damage one file; the seed says of which kind."""
        kind, dice = [*KINDS][seed % len(KINDS)], random.Random(f"rot {seed} {number}")
        with self.folder() as folder:
            repo = dice.choice(self.forms).copy(folder / "repo")
            gitdir = repo.path / ".git"
            found = sorted(file for pattern in KINDS[kind] for file in gitdir.glob(pattern) if file.is_file())
            repo.git("remote", "add", "mirror", str(self.mirror))
            if not found:
                return NO_CASE
            file = dice.choice(found)
            before = file.read_bytes()
            how = _damage(file, before, dice)
            if file.read_bytes() == before:
                return NO_CASE
            with about(f"{os.path.relpath(file, gitdir)}: {how}"):
                self._check(repo, kind, file, before)
        return kind

    def _check(self, repo: Repo, kind: str, file: Path, before: bytes) -> None:
        """Nothing that is read is wrong; the file comes back, or was all that was damaged."""
        view = View.of(self.forms[0].path)
        told = repo.theta("fsck", "--read-data", code=None)
        never_a_bug(told)
        never_a_bug(repo.theta("status", code=None))
        read = repo.theta("export", f"main:{FILE}", "-o", ".git/read.safetensors", "--force", code=None)
        never_a_bug(read)
        if read.returncode == 0 and sha256(repo.path / ".git/read.safetensors") not in self.committed:
            raise FaultError("wrong", "a damaged checkpoint was exported")
        if kind in _OF_OBJECTS:
            done = repo.theta("fsck", "--read-data", "--repair-from", "mirror", code=None)
            if done.returncode:
                raise FaultError("lost", describe(done))
            if read.returncode and told.returncode == 0:
                raise FaultError("wrong", f"fsck finds nothing, and export fails: {describe(read)}")
        else:
            file.write_bytes(before)
        looking.sound(repo.path)
        now = View.of(repo.path)
        if set(view.refs) - set(now.refs):
            raise FaultError("lost", f"branches are gone: {set(view.refs) - set(now.refs)}")


def _damage(file: Path, data: bytes, dice: random.Random) -> str:
    """Change a file; return how."""
    file.chmod(0o644)
    changed, at = bytearray(data), dice.randrange(len(data) or 1)
    how = dice.choice(("bit", "byte", "cut", "zeros", "tail"))
    if how == "bit" and data:
        changed[at] ^= 1 << dice.randrange(8)
    elif how == "byte" and data:
        changed[at] ^= 0xFF
    elif how == "cut":
        del changed[at:]
    elif how == "zeros":
        start = at // 512 * 512
        changed[start : start + 512] = bytes(len(changed[start : start + 512]))
    else:
        changed += dice.randbytes(16)
    file.write_bytes(changed)
    return f"{how} at {at} of {len(data)}"
