"""The names of the files beside a model that tell the ids of its tokens."""

from __future__ import annotations

from typing import Final

from theta.merging.documents.model_files import TOKENIZER

FILES: Final = (TOKENIZER, "vocab.json", "vocab.txt")
"""The first that a model has counts."""
