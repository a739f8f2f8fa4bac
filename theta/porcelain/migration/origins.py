"""The interface of a store that files are migrated from."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final, Protocol

from theta.formats.layout import Source
from theta.git.object_values import Tree

SUFFIXES: Final = (
    ".bin",
    ".ckpt",
    ".gguf",
    ".h5",
    ".keras",
    ".msgpack",
    ".npz",
    ".onnx",
    ".pt",
    ".pth",
    ".safetensors",
)
"""Files with these suffixes are checkpoints where no pattern says which are."""


@dataclass(frozen=True)
class Stub:
    """A file that stands elsewhere.

    Attributes:
        key: equal for equal content, within one migration.
        size: bytes of the file; 0 when only opening it would tell.
        opened: opens the file; what is read is what was stored, or an error is raised.
        lack: why it cannot be opened; "" when it can.
    """

    key: str
    size: int
    opened: Callable[[], AbstractContextManager[Source]]
    lack: str = ""


@dataclass
class Elsewhere:
    """The files of a tree that stand in another store.

    Attributes:
        files: path -> checkpoint.
        plain: path -> file that becomes a blob of git.
        others: path -> bytes of files that also change, None for one that goes.
        left: files of the same store that stay there, by their paths.
    """

    files: dict[str, Stub] = field(default_factory=dict)
    plain: dict[str, Stub] = field(default_factory=dict)
    others: dict[str, bytes | None] = field(default_factory=dict)
    left: set[str] = field(default_factory=set)


class Origin(Protocol):
    """A store of files that histories refer to."""

    label: str
    """The name of the store for a message."""

    def found(self, tree: Tree) -> Elsewhere:
        """Return what ``tree`` has of this store."""
        ...


@dataclass(frozen=True)
class Selected:
    """The files that are to become checkpoints: those that a pattern matches, or whose suffix is known."""

    patterns: tuple[str, ...] = ()

    def __call__(self, path: str) -> bool:
        """Return whether the file at ``path`` is wanted."""
        name = path.rpartition("/")[2]
        if not self.patterns:
            return name.lower().endswith(SUFFIXES)
        return any(fnmatchcase(path if "/" in one else name, one.lstrip("/")) for one in self.patterns)
