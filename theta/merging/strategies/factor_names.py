"""The names of factors in adapters of PEFT."""

from __future__ import annotations

import re
from typing import Final

PEFT: Final = "peft"
"""The strategy for them."""
FACTOR: Final = re.compile(
    r"(?P<module>.+)\.lora(?P<kind>_embedding)?_(?P<part>[AB])(?P<end>(?:\.default)?(?:\.weight)?)"
)
"""The name of a factor in an adapter of PEFT."""


def is_factor(name: str) -> bool:
    """Return whether ``name`` is that of a factor in an adapter of PEFT."""
    return FACTOR.fullmatch(name) is not None
