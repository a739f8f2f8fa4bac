"""The modules of kernels, each imported on first use, so that commands that compute nothing start fast.

``zlib_ng`` is a library: CRC-32 and Adler-32 at 50 GB/s, by the vector units, where :mod:`zlib` has 4.
Every byte of a pack is in both, and every byte of a zip archive in the first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from theta.lazy import Module

if TYPE_CHECKING:
    from zlib_ng import zlib_ng

    from theta_native import (
        byte_planes,
        contexts,
        crc32c,
        differences,
        fingerprints,
        floats,
        gear,
        huffman,
        mixing,
        rans,
        tokens,
        warming,
    )
    from theta_native.coded import choices, sections, surveys, writing
    from theta_native.digests import keyed, sha1, sha256
    from theta_native.factoring import pulls, sums
    from theta_native.gaps import events, moves
else:
    byte_planes = Module("theta_native.byte_planes")
    choices = Module("theta_native.coded.choices")
    contexts = Module("theta_native.contexts")
    crc32c = Module("theta_native.crc32c")
    differences = Module("theta_native.differences")
    events = Module("theta_native.gaps.events")
    fingerprints = Module("theta_native.fingerprints")
    floats = Module("theta_native.floats")
    gear = Module("theta_native.gear")
    huffman = Module("theta_native.huffman")
    mixing = Module("theta_native.mixing")
    keyed = Module("theta_native.digests.keyed")
    moves = Module("theta_native.gaps.moves")
    pulls = Module("theta_native.factoring.pulls")
    rans = Module("theta_native.rans")
    sections = Module("theta_native.coded.sections")
    sha1 = Module("theta_native.digests.sha1")
    sha256 = Module("theta_native.digests.sha256")
    sums = Module("theta_native.factoring.sums")
    surveys = Module("theta_native.coded.surveys")
    tokens = Module("theta_native.tokens")
    warming = Module("theta_native.warming")
    writing = Module("theta_native.coded.writing")
zlib_ng = Module("zlib_ng.zlib_ng")

__all__ = [
    "byte_planes",
    "choices",
    "contexts",
    "crc32c",
    "differences",
    "events",
    "fingerprints",
    "floats",
    "gear",
    "huffman",
    "keyed",
    "mixing",
    "moves",
    "pulls",
    "rans",
    "sections",
    "sha1",
    "sha256",
    "sums",
    "surveys",
    "tokens",
    "warming",
    "writing",
    "zlib_ng",
]
