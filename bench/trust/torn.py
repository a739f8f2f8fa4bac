"""A file that changes while it is read: what is stored is a state that it had, or the command says so.

A thread writes to the file while a command reads it, in steps of at most one page, each of which is a state.
The library of faults slows the reader down.
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.trust import looking
from bench.trust.outcome import FaultError, about
from bench.trust.subjects import OnRepositories, git_fsck, never_a_bug
from tests.reliability.harness import wait_for_children
from tests.reliability.killing import attempt
from tests.support import Repo, make_model, random_tensors, sha256
from tests.support.faults import SLOW, Faults
from tests.support.repos import Done, describe
from theta.git.repository import Repository
from theta.porcelain.workspace.session import Session
from theta.store.read.coming_file import Memory
from theta.store.read.reassembly import Restorer

LARGE: Final = "large.safetensors"
_SHAPES: Final = {f"layers.{number}.w": (256, 1024) for number in range(3)} | {"norm": (256,)}
_PAGE: Final = 4096
_READING: Final = {
    "theta add": ("theta", "add", LARGE),
    "theta commit": ("theta", "commit", "-q", "-a", "-m", "more"),
    "git add": ("git", "add", LARGE),
    "git commit": ("git", "commit", "-q", "-a", "-m", "more"),
    "theta status": ("theta", "status"),
    "theta check": ("theta", "check"),
    "theta diff": ("theta", "diff", "--stats"),
}


@dataclass
class Writer:
    """Writes to a file, and remembers the digest of each of its states.

    Attributes:
        path: the file.
        data: its bytes.
        states: the digests of all states.
        dice: decides.
    """

    path: Path
    data: bytearray
    dice: random.Random
    states: set[str] = field(default_factory=set)

    def note(self) -> None:
        """Remember the state that comes next."""
        self.states.add(hashlib.sha256(self.data).hexdigest())

    def work(self, wait: float) -> None:
        """Change the file some times, the first time after ``wait`` seconds."""
        time.sleep(wait)
        change = self.dice.choice((self._patch, self._patch, self._sweep, self._replace, self._cut))
        for _ in range(self.dice.randint(1, 6)):
            change()
            time.sleep(self.dice.choice((0.0, 0.0005, 0.005, 0.03)))

    def _write(self, at: int, data: bytes) -> None:
        self.data[at : at + len(data)] = data
        self.note()
        with self.path.open("r+b") as file:
            os.pwrite(file.fileno(), data, at)

    def _patch(self) -> None:
        """Write somewhere behind the header, within a page."""
        at = self.dice.randrange(_PAGE, len(self.data) - 64)
        end = min(at // _PAGE * _PAGE + _PAGE, len(self.data))
        self._write(at, self.dice.randbytes(self.dice.randint(1, end - at)))

    def _sweep(self) -> None:
        """Write pages one after the other, as a program that saves in place does."""
        for at in range(_PAGE, len(self.data) - _PAGE, len(self.data) // 16 // _PAGE * _PAGE):
            self._write(at, self.dice.randbytes(_PAGE))

    def _replace(self) -> None:
        """Give another file the name."""
        at = self.dice.randrange(_PAGE, len(self.data) - 64)
        self.data[at : at + 64] = self.dice.randbytes(64)
        self.note()
        draft = self.path.with_name("draft.tmp")
        draft.write_bytes(self.data)
        draft.replace(self.path)

    def _cut(self) -> None:
        """Make the file shorter, then longer again."""
        whole, length = bytes(self.data), self.dice.randrange(_PAGE, len(self.data))
        del self.data[length:]
        self.note()
        os.truncate(self.path, length)
        self.data += bytes(len(whole) - length)
        self.note()
        os.truncate(self.path, len(whole))


class Torn(OnRepositories):
    """Files that change while they are read."""

    name = "torn"
    title = "Torn reads: a file that is written to while a command reads it"
    counts = "readings"
    each = 5

    def use(self, origin: Repo, place: Path, faults: Faults) -> None:
        """Take copies of ``origin`` with a larger checkpoint."""
        super().use(origin, place, faults)
        self.large = origin.copy(place / "larger")
        make_model(self.large.path / LARGE, random_tensors(_SHAPES))
        self.large.theta("add", LARGE)
        self.large.theta("commit", "-q", "-m", "large")

    def case(self, seed: int, number: int) -> str:
        """Let a command read while a thread writes, and then once more in peace."""
        dice = random.Random(f"torn {seed} {number}")
        name = [*_READING][seed % len(_READING)]
        with self.folder() as folder, about(name):
            repo = self.large.copy(folder / "repo")
            writer = Writer(repo.path / LARGE, bytearray((repo.path / LARGE).read_bytes()), dice)
            writer.note()
            writer._patch()
            done = self._read(repo, _READING[name], writer)
            never_a_bug(done)
            if (stored := _staged(repo)) not in writer.states:
                raise FaultError("wrong", f"what is staged is no state that the file had: {describe(done)}")
            self._in_peace(repo, stored)
        return name if len(writer.states) > 2 else f"{name}, one change"

    def _read(self, repo: Repo, words: tuple[str, ...], writer: Writer) -> Done:
        self.faults.set(SLOW, seed=writer.dice.getrandbits(32))
        thread = threading.Thread(target=writer.work, args=(writer.dice.uniform(0, 0.5),))
        thread.start()
        try:
            return attempt(repo, words)
        finally:
            thread.join()
            self.faults.off()
            wait_for_children(repo)

    def _in_peace(self, repo: Repo, stored: str) -> None:
        """Nothing that was remembered of the file while it changed hides how it is now."""
        now = sha256(repo.path / LARGE)
        for program in ("theta", "git"):
            if _is_told(repo, program) != (now != stored) and not (program == "git" and _is_blind(repo)):
                state = "changed" if now != stored else "is as staged"
                raise FaultError("wrong", f"{program} status is wrong: the file {state}")
        repo.theta("add", LARGE)
        if _staged(repo) != now:
            raise FaultError("wrong", "what is staged in peace is not the file")
        looking.sound(repo.path, anew=False)
        git_fsck(repo)


def _is_told(repo: Repo, program: str) -> bool:
    """Return whether a program says that the file is not as it is staged."""
    told = (
        repo.theta("status", "--porcelain").stdout
        if program == "theta"
        else repo.git("status", "--porcelain")
    )
    return any(line[1:2] == "M" and line.endswith(LARGE) for line in told.split("\n"))


def _is_blind(repo: Repo) -> bool:
    """Return whether git's index has the second of the file's last change: git compares no parts of seconds.

    It looks at the content only if the index was not written in a later second (racy-git.txt).
    """
    return f"mtime: {int((repo.path / LARGE).stat().st_mtime)}:" in repo.git("ls-files", "--debug", LARGE)


def _staged(repo: Repo) -> str:
    """Return the digest of the checkpoint in the index."""
    session = Session(Repository.discover(repo.path))
    manifest = session.index.manifest(LARGE)
    if manifest is None:
        raise FaultError("lost", "the index has no checkpoint")
    restorer = Restorer(session.objects, manifest)
    memory = Memory(restorer.plan)
    restorer.write(memory)
    return hashlib.sha256(memory.content).hexdigest()
