"""Repositories made by hand, object by object, with any fault that a test wants."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FILE, FOLDER = "100644", "40000"


@dataclass
class Tensor:
    """A tensor as it is to be stored: ``files`` are those of the layers, ``record`` replaces some keys."""

    dtype: str
    shape: Sequence[int]
    lengths: Sequence[int]
    raw: bytes
    layers: Sequence[Mapping[str, Any]]
    files: Mapping[str, bytes]
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def chunks(self) -> list[bytes]:
        """The raw bytes of each chunk."""
        found, at = [], 0
        for length in self.lengths:
            found.append(self.raw[at : at + length])
            at += length
        return found

    @property
    def digest(self) -> str:
        """The digest of the value (format.md, section 3)."""
        found = hashlib.sha256(f"theta value 1\n{self.dtype} {list(self.shape)}\n".encode())
        for chunk in self.chunks:
            found.update(len(chunk).to_bytes(8, "little") + hashlib.sha256(chunk).digest())
        return found.hexdigest()


def layer(codec: str, base: int | None, dtype: str, shape: Sequence[int]) -> dict[str, Any]:
    """Return a layer as it stands in a record."""
    return {"codec": codec, "base": base, "dtype": dtype, "shape": list(shape)}


def raw_dense(raw: bytes, width: int, rotated: bool = False) -> bytes:
    """Return a dense chunk of raw planes; ``rotated`` for floats of 16 bits and more."""
    if rotated:
        bits, mask = 8 * width, (1 << 8 * width) - 1
        words = [int.from_bytes(raw[at : at + width], "little") for at in range(0, len(raw), width)]
        turned = [(word << 1 | word >> (bits - 1)) & mask for word in words]
        raw = b"".join(word.to_bytes(width, "little") for word in turned)
    return bytes([width]) + raw_planes([raw[byte::width] for byte in range(width)])


def raw_planes(planes: Sequence[bytes]) -> bytes:
    """Return a section of raw planes."""
    return b"".join(b"\0" + len(plane).to_bytes(4, "little") for plane in planes) + b"".join(planes)


class Forge:
    """Writes loose objects into a repository of SHA-1."""

    def __init__(self, repository: Path) -> None:
        self.objects = repository / ("objects" if (repository / "objects").is_dir() else ".git/objects")

    def put(self, kind: str, content: bytes) -> str:
        """Write an object; return its id."""
        whole = f"{kind} {len(content)}\0".encode() + content
        oid = hashlib.sha1(whole).hexdigest()
        path = self.objects / oid[:2] / oid[2:]
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(zlib.compress(whole, 1))
        return oid

    def blob(self, content: bytes) -> str:
        """Write a blob."""
        return self.put("blob", content)

    def tree(self, entries: Mapping[str, tuple[str, str]]) -> str:
        """Write a tree of name -> (mode, id)."""
        rows = sorted(
            (name + "/" * (mode == FOLDER), name, mode, oid) for name, (mode, oid) in entries.items()
        )
        parts = [f"{mode} {name}\0".encode() + bytes.fromhex(oid) for _, name, mode, oid in rows]
        return self.put("tree", b"".join(parts))

    def files(self, contents: Mapping[str, bytes]) -> str:
        """Write a tree of files."""
        return self.tree({name: (FILE, self.blob(content)) for name, content in contents.items()})

    def commit(self, tree: str) -> str:
        """Write a commit."""
        who = "A <a@example.com> 1700000000 +0000"
        return self.put("commit", f"tree {tree}\nauthor {who}\ncommitter {who}\n\nforged\n".encode())

    def tensor(self, tensor: Tensor) -> str:
        """Write the tree of a tensor."""
        ids = {name: self.blob(content) for name, content in tensor.files.items()}
        record = {
            "theta": 1,
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "layers": tensor.layers,
            "chunks": [[len(chunk), hashlib.sha256(chunk).hexdigest()] for chunk in tensor.chunks],
            "files": ids,
        }
        text = json.dumps(record | dict(tensor.record)).encode()
        return self.tree(
            {name: (FILE, oid) for name, oid in ids.items()} | {"@tensor": (FILE, self.blob(text))}
        )

    def checkpoint(self, tensors: Mapping[str, Tensor], skeleton: Mapping[str, bytes] | None = None) -> str:
        """Write a commit with a checkpoint ``model.bin`` of these tensors, one after another."""
        trees = {name: self.tensor(tensor) for name, tensor in tensors.items()}
        if skeleton is None:
            lines = [f"extent {len(tensor.raw)} {name}\n" for name, tensor in tensors.items() if tensor.raw]
            skeleton = {"table.0000": b"theta skeleton 1\n" + "".join(lines).encode()}
        table = self.files(skeleton)
        text = f"theta checkpoint 1\nformat npy\nstore model.bin\nskeleton {table}\n"
        for name, tensor in sorted(tensors.items()):
            line = f"    {tensor.dtype} {list(tensor.shape)} sha256:{tensor.digest} {trees[name]}"
            text += f"{name}\n{line}\nend {name}\n"
        stored = {name: (FOLDER, oid) for name, oid in trees.items()} | {"@skeleton": (FOLDER, table)}
        return self.manifest(text.encode(), {"model.bin": (FOLDER, self.tree(stored))})

    def manifest(self, text: bytes, stores: Mapping[str, tuple[str, str]]) -> str:
        """Write a commit with a manifest at ``model.bin``, and stores below ``.theta``."""
        return self.commit(
            self.tree(
                {
                    "model.bin": (FILE, self.blob(text)),
                    ".gitattributes": (FILE, self.blob(b"*.bin filter=theta diff=theta merge=text -text\n")),
                    ".theta": (FOLDER, self.tree(stores)),
                }
            )
        )
