"""One process of a campaign: ``python -m bench.trust.worker NAME FIRST COUNT [CASE]``.

It runs the seeds from FIRST on and prints the outcome of each as one line of JSON.  The home directory, git's
settings and the clock are those of a test session.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from bench.trust import campaigns, outcome
from tests.support import environment, server


def main(name: str, first: int, count: int, case: int | None = None) -> None:
    """Run ``count`` seeds, or one case."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # the interrupt of a terminal may be ignored
    environment.use_memory()
    home = Path(tempfile.mkdtemp(prefix="theta-trust-")).resolve()
    environment.enter(home)
    campaign = campaigns.make(name)
    (home / "place").mkdir()
    os.environ["TMPDIR"] = tempfile.tempdir = str(home)
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nothing that a case prints gets among the outcomes
    try:
        campaign.prepare(home / "place")
        for seed in range(first, first + count):
            json.dump(outcome.run(campaign, seed, case).as_json(), told)
            told.write("\n")
            told.flush()
    finally:
        server.stop()
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
