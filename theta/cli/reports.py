"""The output of ``--json``: one line, an object with one key ``theta.NAME/vN``."""

from __future__ import annotations

import json
from typing import Any

from theta.cli import console
from theta.units import finite


def as_json(name: str, body: Any) -> None:
    """Print ``body`` as the report ``name``; a change that is no addition takes a new version.

    A number that is infinite or none is null: JSON has no word for it.
    """
    console.out(json.dumps({f"theta.{name}/v1": finite(body)}, allow_nan=False))
