"""Objects of a Git repository, by ``git cat-file --batch``."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.independent.primitives import refuse, require

MAX_TREE: Final = 16 * 2**20
"""The limit of a tree: this reader's own."""
FILE: Final = "100644"


class Objects:
    """The objects of the repository at a path; a context manager, for a process runs."""

    def __init__(self, repository: Path) -> None:
        self._git = subprocess.Popen(
            ["git", "-C", str(repository), "cat-file", "--batch"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._git.kill()
        self._git.__exit__(kind, error, trace)

    def _read(self, name: str, kind: str, limit: int) -> tuple[str, bytes]:
        """Return the id and the content of an object of one kind and at most ``limit`` bytes."""
        require(not re.search(r"[\n\0]", name), "a revision has a control character")
        asked, told = self._git.stdin, self._git.stdout
        assert asked and told
        try:
            asked.write(name.encode("utf-8", "surrogateescape") + b"\n")
            asked.flush()
        except BrokenPipeError:
            refuse("git has ended")
        head = told.readline()
        match = re.fullmatch(rb"([0-9a-f]+) (\w+) ([0-9]+)\n", head)
        if not match or match[2].decode() != kind:
            refuse(f"{name} is no {kind}: {head!r}")
        require(int(match[3]) <= limit, f"{name} is larger than {limit} bytes")
        content = told.read(int(match[3]) + 1)[:-1]
        require(len(content) == int(match[3]), f"{name} is cut short")
        return match[1].decode(), content

    def blob(self, name: str, limit: int) -> bytes:
        """Return the content of a blob of at most ``limit`` bytes."""
        return self._read(name, "blob", limit)[1]

    def tree(self, name: str) -> dict[str, tuple[str, str]]:
        """Return name -> (mode, id) of a tree."""
        oid, content = self._read(name, "tree", MAX_TREE)
        width, at, found = len(oid) // 2, 0, {}
        while at < len(content):
            end = content.find(b"\0", at)
            mode, _, entry = content[at:end].decode("utf-8", "surrogateescape").partition(" ")
            require(end > 0 and len(content) > end + width, f"tree {name} is cut short")
            require(entry not in found, f"tree {name} has a name twice")
            found[entry] = (mode, content[end + 1 : end + 1 + width].hex())
            at = end + 1 + width
        return found

    def files(self, name: str) -> dict[str, str]:
        """Return name -> id of a tree that holds files of mode 100644 only."""
        found = self.tree(name)
        require(
            all(mode == FILE for mode, _ in found.values()), f"tree {name} holds something else than files"
        )
        return {entry: oid for entry, (_, oid) in found.items()}

    def at_path(self, revision: str, path: str) -> str:
        """Return the id of the file at a path of a revision."""
        name = f"{revision}^{{tree}}"
        *folders, last = path.split("/")
        for folder in folders:
            mode, name = self.tree(name).get(folder, ("", ""))
            require(mode == "40000", f"{path} is not there")
        mode, name = self.tree(name).get(last, ("", ""))
        require(mode.startswith("100"), f"{path} is no file")
        return name
