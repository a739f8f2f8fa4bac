"""The versions of a checkpoint that are merged: base, ours and theirs."""

from __future__ import annotations

from collections.abc import Sequence

from theta.porcelain.merge import ancestors
from theta.porcelain.workspace.checkpoints import EMPTY
from theta.porcelain.workspace.session import Session
from theta.store.format.manifest import Manifest

Stages = dict[int, str]
"""Stage -> blob id of one path; 0 is merged, 1 base, 2 ours, 3 theirs."""

Three = tuple[Manifest | None, Manifest | None, Manifest | None]


class Versions:
    """The checkpoints of the commits that are merged, found by store because paths may differ.

    Args:
        session: the repository.
        base: the base commit.
        ours: our commit.
        theirs: their commit.
        chosen: the user chose ``base``; it replaces stage 1 of the index.
        crossing: all merge bases, if there are several.
    """

    def __init__(
        self,
        session: Session,
        base: str | None,
        ours: str | None,
        theirs: str | None,
        *,
        chosen: bool = False,
        crossing: Sequence[str] = (),
    ) -> None:
        self._session = session
        self.chosen_base = base if chosen and base else ""
        self._chosen = chosen
        self._crossing = list(crossing)
        session.expect_trees(filter(None, (base, ours, theirs, *crossing)))
        self.trees = tuple(session.at(one) if one else EMPTY for one in (base, ours, theirs))
        """The checkpoints of base, ours and theirs."""

    def in_base(self, store: str) -> Manifest | None:
        """Return the checkpoint of the base commit with this store."""
        return self.trees[0].by_store.get(store)

    def is_unmoved(self, path: str, stages: Stages) -> bool:
        """Return whether the base has the file of stage 1 at ``path``, so that neither side renamed it."""
        return 1 in stages and self.trees[0].oid(path) == stages[1]

    def of(self, stages: Stages) -> Three:
        """Return base, ours and theirs of a path with ``stages``.

        If git merged the path (stage 0), they are looked up in the commits by their store.
        """
        if 0 in stages:
            merged = self._session.manifest_or_none(stages[0])
            if merged is None:
                return None, None, None
            _, ours, theirs = (side.by_store.get(merged.store) for side in self.trees)
            return self._base(None, ours, theirs), ours, theirs
        base, ours, theirs = (
            self._session.manifest_or_none(stages[n]) if n in stages else None for n in (1, 2, 3)
        )
        return self._base(base, ours, theirs), ours, theirs

    def _base(
        self, found: Manifest | None, ours: Manifest | None, theirs: Manifest | None
    ) -> Manifest | None:
        """Return the base version; ``found`` is the manifest of stage 1."""
        anchor = ours or theirs
        if anchor is None or (found is not None and not self._chosen and len(self._crossing) < 2):
            return found
        if len(self._crossing) > 1:
            return ancestors.crossed(self._session, self._crossing, ours, theirs)
        return self.in_base(anchor.store)
