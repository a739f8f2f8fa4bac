"""The trailer of a commit of a composed model, from which the same model is composed again.

It has the documents of the recipe as JSON on one line, with the ids of commits as the names of models::

    Theta-Recipe: [{"merge_method":"linear","models":[{"model":"<id>"},{"model":"<id>:models/b"}]}]
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from theta.errors import UsageError
from theta.merging import recipe_files
from theta.merging.documents.yaml_documents import MAX_BYTES
from theta.merging.recipe_files import RecipeFile
from theta.porcelain.merge import trailers
from theta.porcelain.workspace.session import Session

TRAILER: Final = "Theta-Recipe"


def line(bodies: Sequence[Mapping[str, Any]]) -> str:
    """Return the trailer of a recipe whose models are named by ids."""
    return f"{TRAILER}: {json.dumps(bodies, separators=(',', ':'), ensure_ascii=True)}"


def of_commit(session: Session, oid: str) -> RecipeFile | None:
    """Return the recipe in the trailer of commit ``oid``; None without one.

    Raises :class:`UsageError` if it is malformed.
    """
    found = trailers.values(session, oid, TRAILER)
    if not found:
        return None
    label = f"the {TRAILER} trailer of {oid[:12]}"
    try:
        bodies = json.loads(found[-1]) if len(found[-1]) <= MAX_BYTES else None
    except (ValueError, RecursionError):
        bodies = None
    if not isinstance(bodies, list) or not bodies or not all(isinstance(body, dict) for body in bodies):
        raise UsageError(f"{label} is malformed")
    return recipe_files.of_bodies(bodies, label)
