"""The words that complete a command line: refs, paths, tensors, runs, and options of git.

A shell waits for them: git is asked at most twice, no library is loaded, nothing is fetched, and where
something is missing or wrong there are no words, never an error.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from theta.errors import ManifestError, NewerFormatError, ThetaError
from theta.git.quoting import split_lines
from theta.git.run import Git
from theta.lazy import Module
from theta.merging.strategies.registry import ALIASES, BUILT_IN

if TYPE_CHECKING:
    from theta.store.format import listings
    from theta.store.format import manifest as manifests
else:
    listings = Module("theta.store.format.listings")
    manifests = Module("theta.store.format.manifest")

STORES: Final = ".theta"  # that of theta.git.repository, which loads a library
SIDES: Final = ("ours", "theirs", "base")
"""The sides of a merge, which settle a conflict as strategies do."""
_BRANCHES: Final = ("refs/heads", "refs/remotes", "refs/tags")
_RUNS: Final = "refs/theta/runs/"
_METRIC: Final = "Theta-Metric"
_HELPER: Final = "--git-completion-helper"
_HIDDEN: Final = (".git", STORES)
_MANY: Final = 60
"""Above this number, names of tensors are offered part by part."""
_MOST_METRICS: Final = 20
"""The number of the newest steps of a run whose metrics are offered."""


@dataclass(frozen=True)
class LineWords:
    """The words that ``git``, a runner in the directory of the user, knows of."""

    git: Git

    def commands(self) -> list[str]:
        """Return the commands and aliases of git."""
        return self._lines("--list-cmds=main,others,alias")

    def options(self, command: str, second: str = "") -> list[str]:
        """Return the options of a command of git, or of its second word, with ``=`` if they take a value."""
        found = " ".join(self._lines(command, _HELPER)).split()
        if second in found and not second.startswith("-"):
            found = " ".join(self._lines(command, second, _HELPER)).split()
        return [word for word in found if word.startswith("-") and word != "--"]

    def seconds(self, command: str) -> list[str]:
        """Return the second words of a command of git, ``push`` and ``pop`` of stash for example."""
        words = " ".join(self._lines(command, _HELPER)).split()
        return [word for word in words if not word.startswith("-")]

    def refs(self) -> list[str]:
        """Return HEAD and the short names of branches and tags."""
        found = self._lines("for-each-ref", "--format=%(refname:strip=2)", *_BRANCHES)
        return ["HEAD", *found] if found else []

    def branches(self) -> list[str]:
        """Return the names of the branches here."""
        return self._lines("for-each-ref", "--format=%(refname:strip=2)", _BRANCHES[0])

    def remotes(self) -> list[str]:
        """Return the names of the remotes."""
        return self._lines("remote")

    def runs(self) -> list[str]:
        """Return the names of the training runs."""
        names = self._lines("for-each-ref", "--format=%(refname)", _RUNS)
        return [name.removeprefix(_RUNS) for name in names]

    def metrics(self, run: str) -> list[str]:
        """Return the names of the metrics of the newest steps of a run."""
        form = f"--format=%(trailers:key={_METRIC},valueonly)"
        lines = self._lines("log", f"-{_MOST_METRICS}", form, f"{_RUNS}{run}")
        return sorted({line.rpartition("=")[0] for line in lines if "=" in line})

    def strategies(self) -> list[str]:
        """Return the strategies and sides of a merge that theta has itself."""
        return sorted({*BUILT_IN, *ALIASES, *SIDES})

    def files(self, word: str) -> list[str]:
        """Return the files and folders of the disk whose path begins with ``word``, folders with ``/``."""
        folder, name = os.path.split(word)
        with (
            contextlib.suppress(OSError),
            os.scandir(self.git.cwd / Path(folder or ".").expanduser()) as all_,
        ):
            found = [
                os.path.join(folder, entry.name) + "/" * entry.is_dir()
                for entry in all_
                if entry.name not in _HIDDEN and entry.name.startswith(name)
            ]
            return sorted(path for path in found if name or not os.path.basename(path).startswith("."))
        return []

    def missing(self) -> list[str]:
        """Return the tracked files here that the disk lacks, which can be restored."""
        return [path for path in self._fields("ls-files", "-z", "--deleted") if f"{STORES}/" not in path]

    def committed(self, revision: str, word: str) -> list[str]:
        """Return the paths of a revision that begin with ``word``, folders with ``/``.

        They are from the top, or from here where ``word`` begins with ``./`` or ``../``.
        """
        folder, here = word[: word.rfind("/") + 1], word.startswith(("./", "../"))
        rows = self._fields("ls-tree", "-z", *(() if here else ("--full-tree",)), revision, folder or ".")
        pairs = [(row.partition("\t")[2], " tree " in row.partition("\t")[0]) for row in rows]
        if here:  # git has them without what leads out of this directory and back into it
            pairs = [(folder + path.rpartition("/")[2], is_folder) for path, is_folder in pairs]
        return [path + "/" * is_folder for path, is_folder in pairs if path not in _HIDDEN]

    def tensors(self, revision: str, path: str) -> list[str]:
        """Return the names of the tensors of the checkpoint at ``path`` of a revision."""
        data = self._run("cat-file", "blob", f"{revision}:{path}")
        try:
            return [line.name for line in manifests.parse(data, self._listings).lines]
        except (ManifestError, NewerFormatError, RecursionError):
            return []

    def checkpoint_tensors(self) -> list[str]:
        """Return the names of the tensors of the checkpoints at HEAD, as long as these are few."""
        paths = self._lines(
            "grep", "-l", "-e", "^theta checkpoint 1", "HEAD", "--", f":(exclude,top){STORES}"
        )
        named = [path.partition(":")[2] for path in paths[:4]]
        return list(dict.fromkeys(name for path in named for name in self.tensors("HEAD", f"./{path}")))

    def _listings(self, groups: Sequence[manifests.NameGroup]) -> Iterable[bytes]:
        asked = "".join(f"{group.tree}:{listings.FILE}\n" for group in groups).encode()
        data = self._run("cat-file", "--batch", stdin=asked)
        for _ in groups:
            head, _, data = data.partition(b"\n")
            size = int(head.split()[-1]) if head.split()[-1:] and head.split()[-1].isdigit() else 0
            yield data[:size]
            data = data[size + 1 :]

    def _lines(self, *args: str) -> list[str]:
        return split_lines(self._run(*args).decode("utf-8", "surrogateescape"))

    def _fields(self, *args: str) -> list[str]:
        return self._run(*args).decode("utf-8", "surrogateescape").split("\0")[:-1]

    def _run(self, *args: str, stdin: bytes | None = None) -> bytes:
        """Return what ``git ARGS`` prints; nothing when it fails."""
        try:
            done = self.git.run(*args, stdin=stdin, check=False)
        except (ThetaError, OSError):
            return b""
        return b"" if done.code else done.stdout


def parts(names: Sequence[str], word: str) -> list[str]:
    """Return the ``names`` that begin with ``word``; of many the part up to the next separator."""
    fitting = [name for name in names if name.startswith(word)]
    if len(fitting) <= _MANY:
        return fitting
    least, most = min(fitting), max(fitting)
    shared = next((at for at, one in enumerate(least) if most[at : at + 1] != one), len(least))
    ends = ((name, [at for one in "./" if (at := name.find(one, shared)) >= 0]) for name in fitting)
    return list(dict.fromkeys(name[: min(found) + 1] if found else name for name, found in ends))
