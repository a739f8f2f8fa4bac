"""The checkpoint beside a model in which strategies keep statistics for the next merge, such as a momentum.

It is ``model.momentum.safetensors`` beside ``model.safetensors``.  The next merge reads that of its base.
Contributors do not change it; where sides differ in it, the merge writes a new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Final

from theta.errors import UsageError
from theta.git.attributes import only_tracked
from theta.merging.engine import MergeOptions
from theta.porcelain.workspace.checkpoints import Checkpoints
from theta.porcelain.workspace.closures import store_name
from theta.porcelain.workspace.session import Session

_ENDING: Final = ".momentum.safetensors"


def place_of(path: str) -> str:
    """Return the path of the statistics of the checkpoint at ``path``."""
    return str(PurePosixPath(path).with_suffix("")) + _ENDING


def is_kept(path: str) -> bool:
    """Return whether a merge that keeps statistics writes the checkpoint at ``path``."""
    return path.endswith(_ENDING)


def prepared(
    session: Session, path: str, trees: Sequence[Checkpoints], options: MergeOptions
) -> MergeOptions:
    """Return ``options`` with what was kept for the checkpoint at ``path``, and the store of what will be.

    ``trees`` are the checkpoints of the base, then of each side.  Raises :class:`UsageError` if git would
    store the file as it is.
    """
    base, place = trees[0], place_of(path)
    if not session.repo.is_bare and not only_tracked(session.repo, [place]):
        raise UsageError(
            f"{place}, which keeps the momentum, would not be a checkpoint", hint=f"theta track '*{_ENDING}'"
        )
    known = [manifest for tree in trees if (manifest := tree.manifest(place)) is not None]
    taken = {manifest.store for tree in trees for manifest in tree.manifests.values()}
    store = known[0].store if known else store_name(place, taken)
    return replace(options, kept=base.manifest(place), kept_store=store)
