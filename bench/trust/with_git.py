"""Random histories of theta against C git, in repositories of every format that git has here."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from unittest import mock

from bench.trust.outcome import about
from tests.compat import test_random_histories as histories
from tests.support import Repo, server
from theta.porcelain.setup import installing

_SETTINGS: Final[Mapping[str, tuple[str, ...]]] = {
    "index.version": ("2", "3", "4"),
    "core.untrackedCache": ("true",),
    "core.sharedRepository": ("group", "0660"),
    "extensions.worktreeConfig": ("true",),
    "feature.manyFiles": ("true",),
    "core.commitGraph": ("true", "false"),
    "core.multiPackIndex": ("true", "false"),
    "core.compression": ("0", "9"),
    "core.logAllRefUpdates": ("always", "false"),
    "repack.writeBitmaps": ("true",),
    "core.checkStat": ("minimal",),
    "core.trustctime": ("false",),
    "merge.conflictStyle": ("merge",),
}
"""Settings that change what git keeps, and how; each is drawn for a tenth of the histories.

Not ``core.splitIndex``: libgit2 reads no split index, and theta refuses to edit one, with a hint.
"""


def formats() -> list[dict[str, str]]:
    """Return the variables for each format in which git makes repositories here."""
    found = [{"GIT_DEFAULT_HASH": name} for name in ("sha1", "sha256")]
    told = subprocess.run(["git", "init", "-h"], capture_output=True, text=True, check=False)
    if "--ref-format" in told.stdout:  # git 2.45
        found += [{**one, "GIT_DEFAULT_REF_FORMAT": "reftable"} for one in found]
    return found


class WithGit:
    """Histories of a checkpoint by theta, and of a text of the same values by git."""

    name = "histories"
    title = "Random histories against C git, in repositories of every format"
    counts = "histories"
    each = 4

    def prepare(self, place: Path, /) -> None:
        """Look for the formats; hooks and filters of the repositories use the server of the tests."""
        self.place, self.formats, self.number = place, formats(), 0
        mock.patch.object(installing, "sys", server.Python()).start()

    def case(self, seed: int, number: int, /) -> str:
        """Live one history; the seed says in which format."""
        dice = random.Random(f"histories {seed} {number}")
        form = self.formats[seed % len(self.formats)]
        drawn = {key: dice.choice(values) for key, values in _SETTINGS.items() if dice.random() < 0.1}
        self.number += 1
        folder = self.place / f"case{self.number}"
        try:
            with mock.patch.dict(os.environ, form), about(f"{form} {drawn}"):
                histories.live(
                    folder, dice.getrandbits(32), dice.randint(8, 20), lambda repo: _set(repo, drawn)
                )
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return " ".join(form.values())


def _set(repo: Repo, drawn: Mapping[str, str]) -> None:
    for key, value in drawn.items():
        repo.git("config", key, value)
