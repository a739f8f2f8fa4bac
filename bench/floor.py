"""The least that storing a file costs: read it, hash with SHA-1 and write as much as theta does, fsync.

    python -S bench/floor.py BYTES TARGET SOURCE...

The sources are read to their ends.  The first BYTES of them are hashed and written to TARGET.
"""

from __future__ import annotations

import hashlib
import os
import sys

PIECE = 1 << 22


def main() -> None:
    """Read, hash, write, and wait for the disk."""
    left, digest = int(sys.argv[1]), hashlib.sha1(usedforsecurity=False)
    with open(sys.argv[2], "wb", buffering=0) as target:
        for source in sys.argv[3:]:
            with open(source, "rb", buffering=0) as file:
                while piece := file.read(PIECE):
                    kept = piece[:left]
                    digest.update(kept)
                    target.write(kept)
                    left -= len(kept)
        os.fsync(target.fileno())


if __name__ == "__main__":
    main()
