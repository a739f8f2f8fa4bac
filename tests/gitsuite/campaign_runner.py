"""Running scripts of git's test suite with a stand-in for git, and comparing two runs test by test."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.support import environment
from tests.support import server as warm

HERE: Final = Path(__file__).resolve().parent

HANDED: Final = (
    *("commit", "merge", "checkout", "switch", "add", "rm", "mv", "restore", "status", "diff", "log", "show"),
    *("branch", "tag", "reset", "clone", "fetch", "pull", "push", "cherry-pick", "revert", "rebase", "stash"),
)
"""Commands that go through theta."""
_RESULT: Final = re.compile(r"^(?P<no>not )?ok (?P<number>\d+)(?P<rest>.*)$")
_KNOWN: Final = re.compile(r"(?P<mode>\w+) (?P<script>[\w-]+) (?P<numbers>[\d ]+): (?P<reason>.+)")
_LONGEST: Final = 3000
"""Seconds that one script may take."""


@dataclass(frozen=True)
class Kind:
    """A stand-in: the commands that it hands to theta, and what each new repository has in its index."""

    handed: tuple[str, ...] = ()
    initial: str = ""


@dataclass(frozen=True)
class Mode:
    """Two kinds of stand-ins that are compared, and the file that lists the scripts."""

    kind: Kind
    control: Kind
    scripts: str


MODES: Final = {
    "plain": Mode(Kind(HANDED), Kind(), "scripts.txt"),
    "tracked": Mode(Kind((*HANDED, "init"), "checkpoint"), Kind(("init",), "file"), "scripts-tracked.txt"),
    "setup": Mode(Kind(("init", "clone")), Kind(), "scripts-setup.txt"),
}


@dataclass(frozen=True)
class Outcome:
    """The result of a script.

    Attributes:
        passed: number -> whether the test passed, without those that are skipped or known to be broken.
        output: what the script printed.
        lost: what is wrong with checkpoints of the repositories that it left.
    """

    passed: Mapping[int, bool]
    output: str
    lost: list[str]


def scripts(mode: str) -> list[str]:
    """Return the names of the scripts of a mode."""
    return (HERE / MODES[mode].scripts).read_text().split()


def known_lines() -> Iterator[tuple[str, str, frozenset[int], str]]:
    """Yield mode, script, numbers and reason of each line of known.txt."""
    for line in (HERE / "known.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            found = _KNOWN.fullmatch(line)
            assert found, line
            numbers = frozenset(map(int, found["numbers"].split()))
            yield found["mode"], found["script"], numbers, found["reason"]


def known(mode: str, script: str) -> set[int]:
    """Return the tests of a script that are known to differ."""
    found = (numbers for where, name, numbers, _ in known_lines() if (where, name) == (mode, script))
    return set().union(*found)


def differing(control: Outcome, through: Outcome) -> set[int]:
    """Return the tests that pass in the control only."""
    return {number for number, passed in control.passed.items() if passed and not through.passed.get(number)}


def told(outcome: Outcome, numbers: set[int]) -> str:
    """Return what a script printed of some tests."""
    parts: list[str] = []
    block: list[str] = []
    for line in outcome.output.splitlines():
        found = _RESULT.match(line)
        block.append(line)
        if found:
            parts += block if int(found["number"]) in numbers else []
            block = []
    return "\n".join([f"differing: {sorted(numbers)}", *parts])


def parsed(output: str, lost: list[str]) -> Outcome:
    """Read the results of a script."""
    passed: dict[int, bool] = {}
    for line in output.splitlines():
        found = _RESULT.match(line)
        if found and "# TODO" not in found["rest"] and "# skip" not in found["rest"].lower():
            passed[int(found["number"])] = not found["no"]
    return Outcome(passed, output, lost)


class StandIns:
    """The stand-ins of one session; a context manager that ends their servers."""

    def __init__(self, tree: Path, home: Path) -> None:
        self._tree, self._home = tree, home
        self._made: dict[Kind, Path] = {}
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def run(self, kind: Kind, script: str, root: Path) -> Outcome:
        """Run ``script`` with a stand-in of ``kind``; its trash directory is in ``root``."""
        if kind not in self._made:
            self._made[kind] = self._make(kind) if kind.handed else self._tree / "bin-wrappers"
        root.mkdir(parents=True, exist_ok=True)
        command = ["sh", f"./{script}.sh", f"--root={root}", "-v", *(["-d"] if kind.initial else [])]
        done = subprocess.run(
            command,
            cwd=self._tree / "t",
            env=self._environment(kind, root),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_LONGEST,
            check=False,
        )
        lost = list(_lost(root)) if kind.initial == "checkpoint" else []
        shutil.rmtree(root, ignore_errors=True)
        return parsed(done.stdout.decode("utf-8", "replace"), lost)

    def _environment(self, kind: Kind, root: Path) -> dict[str, str]:
        foreign = ("GIT_", "XDG_", "THETA_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        return kept | {
            "GIT_TEST_INSTALLED": str(self._made[kind]),
            "GIT_TEST_EXEC_PATH": str(self._tree),
            "TEST_OUTPUT_DIRECTORY": str(root),
            "STAND_IN_INITIAL": kind.initial,
            "THETA_KERNEL_WORKERS": "0",
        }

    def _make(self, kind: Kind) -> Path:
        """Compile a stand-in and start its server; return the directory of its ``git``."""
        home = Path(tempfile.mkdtemp(dir=self._home))
        (own := home / "bin").mkdir()
        real = self._tree / "bin-wrappers"
        # The path of a socket has at most 107 bytes.
        place = Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="gs-", dir="/tmp")))
        words = {"SOCKET": place / "s", "REAL": real / "git", "COMMANDS": " ".join(kind.handed)}
        defined = [f'-D{name}="{value}"' for name, value in words.items()]
        subprocess.run(["cc", "-O1", *defined, "-o", own / "git", HERE / "stand_in.c"], check=True)
        warm.make_client(program := home / "theta-python", str(place / "s"))
        command = [sys.executable, "-m", "tests.gitsuite.fork_server", str(place / "s")]
        server = subprocess.Popen(
            [*command, str(own), str(real), str(program)],
            cwd=environment.ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._open.callback(_end, server)
        assert server.stdout is not None
        if server.stdout.readline() != b"ready\n":
            raise RuntimeError("theta could not be loaded; its own words are above")
        return own


def _end(server: subprocess.Popen[bytes]) -> None:
    for pipe in (server.stdin, server.stdout):
        if pipe is not None:
            pipe.close()
    server.wait()


def _lost(root: Path) -> Iterator[str]:
    """Yield what theta finds wrong with checkpoints in the repositories below ``root``."""
    for private in root.rglob(".git/theta"):
        top = private.parent.parent
        command = [sys.executable, "-m", "theta", "-C", str(top), "fsck", "--read-data"]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        said = (done.stdout + done.stderr).splitlines() if done.returncode else []
        yield from (f"{top.relative_to(root)}: {line}" for line in said if "model.safetensors" in line)
