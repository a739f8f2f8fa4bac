"""Codecs: how the chunks of a tensor become the bytes that are stored, and back.

A codec is a module with a ``NAME`` (``dense/1``: what it is, and the version of its format).
Names are written into repositories, so a name never changes its meaning.  Modules are imported
when they are asked for.  ``dense/1`` stands alone (``encode``, ``decode``); the others describe a
tensor by a lower layer and have the interface of ``theta.codecs.base.LayerCodec``.
``theta.codecs.chooser`` finds the one that stores a tensor in the fewest bytes.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from types import ModuleType
from typing import Final

from theta.errors import NewerFormatError

_MODULES: Final = {
    "dense/1": "theta.codecs.dense",
    "delta/1": "theta.codecs.delta",
    "sparse/1": "theta.codecs.sparse",
    "steps/1": "theta.codecs.steps",
    "nudges/1": "theta.codecs.moves.nudges",
    "cast/1": "theta.codecs.cast",
    "scaled/1": "theta.codecs.scaled",
    "rows/1": "theta.codecs.rows",
    "lowrank/1": "theta.codecs.lowrank",
}


_OF_DECODING: Final = (
    "numpy",
    "theta_native.digests.sha256",
    "theta_native.digests.keyed",
    "theta_native.coded.sections",
    "theta_native.object_code.linker",
    "theta.codecs.delta",
)
"""Modules whose import takes longest where a tensor is decoded."""
_OF_ENCODING: Final = ("theta.codecs.chooser", "theta.codecs.residual", *_MODULES.values())


def prepare(*, encoding: bool = False) -> None:
    """Import now what decoding or encoding will need, with no error where something is missing."""
    for name in (*_OF_DECODING, *(_OF_ENCODING if encoding else ())):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def names() -> tuple[str, ...]:
    """Return the names of all codecs that this version can decode."""
    return tuple(_MODULES)


@functools.cache
def codec(name: str) -> ModuleType:
    """Return the module of the codec ``name``; raises ``NewerFormatError`` for an unknown one."""
    check(name)
    return importlib.import_module(_MODULES[name])


def check(name: str) -> None:
    """Raise ``NewerFormatError`` unless this version can decode the codec ``name``."""
    if name not in _MODULES:
        raise NewerFormatError(
            f"a tensor is stored with {name[:40]!a}, a codec that is newer than this theta",
            hint="upgrade theta",
        )
