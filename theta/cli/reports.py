"""The output of ``--json``: one line, an object with one key ``theta.NAME/vN``."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from theta.cli import console
from theta.lazy import Module
from theta.units import finite

if TYPE_CHECKING:
    from theta.porcelain.look import overview
    from theta.porcelain.workspace import session
else:
    overview = Module("theta.porcelain.look.overview")
    session = Module("theta.porcelain.workspace.session")


def as_json(name: str, body: Any) -> None:
    """Print ``body`` as the report ``name``; a change that is no addition takes a new version.

    A number that is infinite or none is null: JSON has no word for it.
    """
    console.out(json.dumps({f"theta.{name}/v1": finite(body)}, allow_nan=False))


def files(name: str, places: Iterable[Path], tensors: int, nbytes: int) -> None:
    """Print as the report ``name`` that files with ``tensors`` of ``nbytes`` in all were written."""
    rows = [{"path": str(place), "bytes": place.stat().st_size} for place in places]
    as_json(name, {"files": rows, "tensors": tensors, "bytes": nbytes})


@contextlib.contextmanager
def apart(wanted: bool = True) -> Iterator[None]:
    """Let all that the block and its programs print go to standard error: a report stands alone."""
    if not wanted:
        yield
        return
    console.flush()
    output = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        console.flush()
        os.dup2(output, 1)
        os.close(output)


@contextlib.contextmanager
def moved(wanted: bool = True) -> Iterator[None]:
    """Print what became of HEAD in the block as JSON, and nothing else on standard output, if ``wanted``.

    Nothing is printed where the block raises.
    """
    if not wanted:
        yield
        return
    before = session.Session.here(".").repo.head()
    with apart():
        yield
    as_json("moved", overview.since(session.Session.here("."), before).as_json())
