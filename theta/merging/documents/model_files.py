"""A model as one input of a recipe: the tensors of all its files, and what stands beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from theta.errors import UsageError
from theta.lazy import lazy
from theta.store.format.manifest import Line, Manifest

CONFIG: Final = "config.json"
INDEX: Final = ".index.json"
TOKENIZER: Final = "tokenizer.json"
VOCABULARIES: Final = (TOKENIZER, "vocab.json", "vocab.txt")
"""The files that tell the ids of tokens; the first that a model has counts."""
OF_TOKENIZER: Final = (
    TOKENIZER,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
)
BESIDE: Final = (CONFIG, "generation_config.json", *OF_TOKENIZER)
"""The files beside a model that its result takes over."""

EMBEDDING: Final = re.compile(
    r"(.*[./])?(embed_tokens|embed_in|wte|word_embeddings|tok_embeddings|tokens_embed|token_embd|shared"
    r"|embeddings?)(\.weight)?"
)
"""Names of the embedding of the input's tokens."""
HEAD: Final = re.compile(r"(.*[./])?(lm_head|embed_out|output|output_layer|head)(\.weight)?")
"""Names of the head, which gives each token's score, and of some hidden matrices: see :func:`is_head`."""
_IN_LAYER: Final = re.compile(r".*[./]\d+[./].")
"""Names of tensors of a layer, such as ``h.0.attn.output.weight``, which is no head."""


def is_head(name: str) -> bool:
    """Return whether tensor ``name`` is a head, by its name."""
    return bool(HEAD.fullmatch(name)) and not _IN_LAYER.match(name)


def is_of_tokens(name: str) -> bool:
    """Return whether tensor ``name`` has a row for each token, by its name."""
    return bool(EMBEDDING.fullmatch(name)) or is_head(name.removesuffix(".bias"))


@dataclass(frozen=True)
class ModelFiles:
    """One version of a model.

    Attributes:
        label: its name in the recipe.
        folder: the folder that it is in, with a slash at its end; empty for the root.
        manifests: path -> the tensors of each file.
        texts: name of a file in the folder -> its bytes, of those that say something of the model.
    """

    label: str
    folder: str
    manifests: Mapping[str, Manifest]
    texts: Mapping[str, bytes] = field(default_factory=dict)

    @lazy
    def places(self) -> Mapping[str, str]:
        """The path of the file that has each tensor; raises :class:`UsageError` for a name in two files."""
        found: dict[str, str] = {}
        for path, manifest in sorted(self.manifests.items()):
            for line in manifest.lines:
                if found.setdefault(line.name, path) != path:
                    raise UsageError(f"{self.label}: {line.name} is in {found[line.name]} and in {path}")
        return found

    @lazy
    def lines(self) -> Mapping[str, Line]:
        """All tensors by name."""
        return {line.name: line for manifest in self.manifests.values() for line in manifest.lines}

    def line(self, name: str) -> Line | None:
        """Return the tensor ``name``; for a head that is not there the embedding that it is tied to."""
        found = self.lines.get(name)
        if found is None and is_head(name):
            found = next((line for key, line in self.lines.items() if EMBEDDING.fullmatch(key)), None)
        return found
