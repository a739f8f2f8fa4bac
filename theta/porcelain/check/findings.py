"""The findings of ``theta check``, and the rules by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

RULES: Final[Mapping[str, str]] = {
    "unreadable": "a file cannot be read as a checkpoint, or none stands where one is tracked",
    "nan": "a tensor has elements that are no number",
    "inf": "a tensor has infinite elements",
    "zero": "all elements of a matrix are zero, or rows that were not before",
    "constant": "all elements of a matrix are the same",
    "dtype": "tensors of one kind have several dtypes, or a dtype is not that of the version before",
    "shape": "a shape is not the one that config.json implies, or not that of the version before",
    "missing": "a tensor that the version before had is gone",
    "vocabulary": "the tokenizer has ids for which there are no embeddings",
    "tie": "config.json ties two tensors that differ",
    "frozen": "a tensor that is to stay as it is has changed",
    "change": "a tensor changed more than its budget",
    "pickle": "loading the file would call something dangerous",
    "metadata": "an entry of the file's metadata was lost",
    "licence": "the licence file, or the licence that the model card names, was lost",
    "shards": "shards and index do not fit each other",
    "size": "more bytes are new than the budget allows",
}
"""Names of rules and what a finding of each means."""


@dataclass(frozen=True)
class BrokenRule:
    """One thing that is wrong.

    Attributes:
        rule: a key of :data:`RULES`.
        path: the path of the file.
        tensor: the name of the tensor; "" for the file as a whole.
        message: one sentence with the numbers.
    """

    rule: str
    path: str
    tensor: str
    message: str

    def as_json(self) -> dict[str, str]:
        """Return it as plain data."""
        return {"rule": self.rule, "path": self.path, "tensor": self.tensor, "message": self.message}
