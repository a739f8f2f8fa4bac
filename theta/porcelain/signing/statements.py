"""A signed statement: the digests of all files of a commit, and of the tensors in its checkpoints.

The form is that of OpenSSF Model Signing 1.0 (an in-toto statement).  What that does not know, the commit and
its tensors, stands below ``theta`` in the predicate, where its verifiers do not look.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from theta.errors import MALFORMED, BadSignatureError

IGNORED: Final = (".git", ".gitattributes", ".github", ".gitignore")
"""Names at the root that Model Signing leaves out."""
MOST: Final = 256 << 20
"""Bytes of a statement that are read: 10 million tensors have less."""

_TYPE: Final = "https://in-toto.io/Statement/v1"
_PREDICATE: Final = "https://model_signing/signature/v1.0"
_VALUE: Final = "theta-value-1"
"""The digest of a value of theta's format (section 3 of ``theta help format``)."""
_HEX: Final = re.compile(r"[0-9a-f]{64}")
_TOLD: Final = 20


@dataclass(frozen=True)
class Statement:
    """The digests that a signature is of.

    Attributes:
        model: a name for people.
        commit: the id of the commit; "" in a statement that another program made.
        files: path -> SHA-256 of the file, hexadecimal.
        tensors: path of a checkpoint -> name of a tensor -> dtype, shape and digest of its value.
    """

    model: str
    commit: str
    files: Mapping[str, str]
    tensors: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def encoded(self) -> bytes:
        """Return the statement as JSON; equal ones have equal bytes."""
        names = sorted(self.files, key=lambda path: path.split("/"))
        root = hashlib.sha256(b"".join(bytes.fromhex(self.files[name]) for name in names))
        resources = [{"name": name, "algorithm": "sha256", "digest": self.files[name]} for name in names]
        serialization = {
            "method": "files",
            "hash_type": "sha256",
            "allow_symlinks": False,
            "ignore_paths": list(IGNORED),
        }
        own = {"commit": self.commit, "value": _VALUE, "tensors": self.tensors}
        whole = {
            "_type": _TYPE,
            "subject": [{"name": self.model, "digest": {"sha256": root.hexdigest()}}],
            "predicateType": _PREDICATE,
            "predicate": {"serialization": serialization, "resources": resources, "theta": own},
        }
        return json.dumps(whole, separators=(",", ":"), sort_keys=True).encode()

    def differences(self, found: Statement) -> list[str]:
        """Return a line for each file, or tensor of a file, that is not as it was signed."""
        lines = list(self._differences(found))
        more = [f"and {len(lines) - _TOLD} more"] if len(lines) > _TOLD else []
        return lines[:_TOLD] + more

    def _differences(self, found: Statement) -> Iterator[str]:
        if self.commit and found.commit != self.commit:
            yield f"the signature is of commit {self.commit[:12]}"
        for path in sorted({*self.files, *found.files}):
            if path not in found.files:
                yield f"{path} was signed and is gone"
            elif path not in self.files:
                yield f"{path} was not signed"
            elif self.files[path] != found.files[path]:
                yield from self._in_file(path, found)
            elif self.tensors and self.tensors.get(path, {}) != found.tensors.get(path, {}):
                yield f"{path}: the signed digests of its tensors are others"

    def _in_file(self, path: str, found: Statement) -> Iterator[str]:
        signed, now = self.tensors.get(path), found.tensors.get(path)
        if signed is None or now is None:
            yield f"{path} is not what was signed"
            return
        names = [name for name in sorted({*signed, *now}) if signed.get(name) != now.get(name)]
        for name in names:
            what = "is gone" if name not in now else "was not signed" if name not in signed else "differs"
            yield f"{path}: tensor {name} {what}"
        if not names:
            yield f"{path} differs outside of its tensors"


def parsed(payload: bytes) -> Statement:
    """Return the statement of a payload; raises :class:`BadSignatureError` if it is none."""
    try:
        return _checked(json.loads(payload))
    except MALFORMED as error:
        raise BadSignatureError("the signed statement cannot be read") from error


def _checked(whole: Any) -> Statement:
    predicate = whole["predicate"]
    if (whole["_type"], whole["predicateType"]) != (_TYPE, _PREDICATE):
        raise ValueError("another kind of statement")
    serialization = predicate["serialization"]
    if (serialization["method"], serialization["hash_type"]) != ("files", "sha256"):
        raise ValueError("another way to hash files")
    files = {str(one["name"]): _digest(one["digest"]) for one in predicate["resources"]}
    if len(files) != len(predicate["resources"]):
        raise ValueError("a file is there twice")
    (subject,) = whole["subject"]
    root = b"".join(bytes.fromhex(one["digest"]) for one in predicate["resources"])
    if subject["digest"]["sha256"] != hashlib.sha256(root).hexdigest():
        raise ValueError("the digest of all files is another")
    own = predicate.get("theta", {})
    tensors = {
        path: {name: str(text) for name, text in found.items()}
        for path, found in own.get("tensors", {}).items()
    }
    return Statement(str(subject["name"]), str(own.get("commit", "")), files, tensors)


def _digest(text: Any) -> str:
    if not (isinstance(text, str) and _HEX.fullmatch(text)):
        raise ValueError("no SHA-256")
    return text
