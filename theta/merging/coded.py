"""Quantised weights: groups of codes and scales that have values only together.

A code without its scale has no value: a sum or a mean of codes is noise.  The groups are detected by names
and dtypes, because no container lists them::

    X.weight (f8)         X.weight_scale_inv, X.weight_scale, X.input_scale   FP8, compressed-tensors
    X.weight (i8)         X.SCB                                               bitsandbytes, 8 bits
    X.weight (u8)         X.weight.absmax, .quant_map, .quant_state.*         bitsandbytes, 4 bits
    X.qweight (i32)       X.qzeros, X.scales, X.g_idx                         GPTQ, AWQ
    X.weight_packed       X.weight_scale, X.weight_shape                      compressed-tensors
    X.weight (u32)        X.scales, X.biases                                  MLX
    X_blocks (u8)         X_scales                                            MXFP4
    state1 (u8)           absmax1, qmap1                                      optimizers in 8 bits
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from theta.dtypes import DTYPES

_CODES: Final = (
    r"qweight|q_weight|weight_packed|packed|blocks|W_q|_data|qdata|codes|Qidxs|trellis|indices|B|state[12]"
)
_SCALES: Final = (
    r"(?:input_|output_|global_|act_|q_)?scales?(?:_inv|_2|_max|_weight|_input)?|input_global_scale|SCB"
    r"|q?zeros?|zero_point|g_idx|shape|absmax[12]?|quant_map|qmap[12]|nested_absmax|nested_quant_map"
    r"|quant_state\.\w+|biases|s|shift|_scale|_shift|codebooks?|centroids|SU|SV|suh|svh|q_groups|q_perm|q_invperm"
    r"|weight_format|meta|tables"
)
_PART: Final = re.compile(
    rf"(?P<stem>.+?)?(?:[._:]weight)?(?:^|[._:])(?:(?P<codes>{_CODES})|(?P<scales>{_SCALES}))"
)
_BARE: Final = re.compile(r"(?P<stem>.+?)(?:\.weight)?")
_ALSO_OF_OTHERS: Final = {".scale", ".zero", ".s", ".shape", ".shift", ".meta", ".tables"}
"""Parts that a norm may have too: alone they do not indicate codes."""
_CODED_KINDS: Final = ("int", "uint", "packed", "bytes")


@dataclass(frozen=True)
class Coded:
    """A group of tensors that have values only together; codes or scales may be in another file."""

    codes: tuple[str, ...]
    scales: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all tensors in the group."""
        return self.codes + self.scales

    def reason(self, name: str) -> str:
        """Return a clause that says what tensor ``name`` is and why it is never computed with."""
        if name in self.codes:
            beside = self.scales[0] if self.scales else "another file"
            return f"it holds codes whose scales are in {beside}, and codes are never computed with"
        beside = self.codes[0] if self.codes else "another file"
        return f"it scales the codes in {beside}, and belongs to them"


def groups(tensors: Iterable[tuple[str, str]]) -> dict[str, Coded]:
    """Return name -> group of each tensor in a group; ``tensors`` are pairs (name, dtype).

    If a file has such groups, codes or scales alone form groups too: a model may be sharded between them.
    """
    known = dict.fromkeys(tensors)
    if not any(_may_be_codes(dtype) for _, dtype in known):
        return {}
    codes: dict[str, set[str]] = {}
    scales: dict[str, dict[str, str]] = {}
    for name, dtype in known:
        part = _PART.fullmatch(name)
        if part is not None and part["scales"]:
            stem = part["stem"] or ""
            scales.setdefault(stem, {})[name] = name[len(stem) :]
        elif _may_be_codes(dtype):
            stem = (part or _BARE.fullmatch(name) or {"stem": name})["stem"]
            codes.setdefault(stem or "", set()).add(name)
    return _joined(codes, scales, {name for name, dtype in known if DTYPES[dtype].kind == "float"})


def _joined(
    codes: dict[str, set[str]], scales: dict[str, dict[str, str]], floats: set[str]
) -> dict[str, Coded]:
    """Join codes and scales of the same stem, and in a quantised file also form groups of one part."""
    whole = codes.keys() & scales.keys()
    parts = {part for stem in whole for part in scales[stem].values()} - _ALSO_OF_OTHERS
    some_floats = any(name in floats for stem in whole for name in codes[stem])
    found: dict[str, Coded] = {}
    for stem in codes.keys() | scales.keys() if whole else ():
        here = codes.get(stem, set()) if stem in whole or some_floats else set()
        here = here if stem in whole else here & floats
        beside = {n for n, part in scales.get(stem, {}).items() if stem in whole or part in parts}
        group = Coded(tuple(sorted(here)), tuple(sorted(beside)))
        found |= dict.fromkeys(group.names, group)
    return found


def _may_be_codes(dtype: str) -> bool:
    """Return whether values of ``dtype`` may be codes: no floats of 16 bits or more, no booleans."""
    return DTYPES[dtype].kind in _CODED_KINDS or dtype.startswith("f8_")
