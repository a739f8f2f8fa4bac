"""Modules that share one weight: a head that ``config.json`` ties to the embedding.

The checkpoint does not tell.  It has one tensor for both modules, or two that a loader ties again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from theta.porcelain.workspace.session import Session

CONFIG: Final = "config.json"
_MOST_CONFIG: Final = 1 << 20
_EMBEDDING: Final = re.compile(
    r"(.*\.)?(embed_tokens|wte|word_embeddings|embed_in|tok_embeddings|tokens_embed|shared)"
)
_SHARED: Final = re.compile(r"(?P<head>.*\.)?shared")
_HEAD: Final = re.compile(r"(.*\.)?(lm_head|embed_out)")
_DECODERS: Final = {"cls.predictions": "transform", "lm_head": "dense"}
"""A head of several modules, as BERT and RoBERTa have it -> one of them; its ``decoder`` is the tied one."""
_WITH_HEAD: Final = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "DoubleHeadsModel")
_WITH_OTHER_HEAD: Final = ("ForMaskedLM", "ForPreTraining")
_WEIGHT: Final = ".weight"


@dataclass(frozen=True)
class TiedWeights:
    """Modules that share one weight.

    Attributes:
        modules: the tied modules, the embedding first; may be empty.
        certain: the configuration tells; otherwise the head may be tied, because the file has none.
    """

    modules: tuple[str, ...] = ()
    certain: bool = True

    def __contains__(self, module: str) -> bool:
        return module in self.modules

    def others(self, module: str) -> list[str]:
        """Return the other modules that are tied to ``module``."""
        return [other for other in self.modules if other != module]


def has_tokens(module: str) -> bool:
    """Return whether the rows of ``module`` are tokens, by its name: an embedding or a head."""
    return bool(_EMBEDDING.fullmatch(module) or _HEAD.fullmatch(module))


def beside(session: Session, path: str, revision: str = "HEAD") -> Mapping[str, Any]:
    """Return the ``config.json`` beside the checkpoint at ``path``, or {}.

    That of ``revision`` comes before that of the worktree.
    """
    name = path.rpartition("/")[0] + "/" + CONFIG if "/" in path else CONFIG
    entry = session.repo.tree_of(revision).get(name)
    if entry is not None and entry.is_file:
        return _parsed(session.repo.read_blob(entry.id))
    if session.repo.is_bare:
        return {}
    file = session.repo.worktree / name
    return _parsed(file.read_bytes()) if file.is_file() and file.stat().st_size <= _MOST_CONFIG else {}


def _parsed(data: bytes) -> Mapping[str, Any]:
    if len(data) > _MOST_CONFIG:
        return {}
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def find(config: Mapping[str, Any], names: Collection[str]) -> TiedWeights:
    """Return the tied modules of a model with this configuration and tensors of these names."""
    modules = {name.removesuffix(_WEIGHT) for name in names if name.endswith(_WEIGHT)}
    embeddings = sorted((name for name in modules if _EMBEDDING.fullmatch(name)), key=len)
    if not embeddings:
        return TiedWeights()
    first = next((name for name in embeddings if _SHARED.fullmatch(name)), embeddings[0])
    tied = (first, *_copies(first))
    heads = sorted(name for name in modules if _HEAD.fullmatch(name))
    said = _said(config)
    if said is False or (heads and not said):
        return TiedWeights(tied if len(tied) > 1 else ())
    if not heads:
        heads = [f"{head}.decoder" for head, part in _DECODERS.items() if _has_part(modules, head, part)]
        if heads:
            return TiedWeights((*tied, *heads))
    architectures = config.get("architectures")
    if not heads and isinstance(architectures, list) and architectures:
        if not any(str(name).endswith(_WITH_HEAD) for name in architectures):
            # The model has no head, or a head with an unknown name.
            return TiedWeights(
                tied, certain=not any(str(name).endswith(_WITH_OTHER_HEAD) for name in architectures)
            )
        said = True
    return TiedWeights((*tied, *(heads or ["lm_head"])), certain=said is True)


def _has_part(modules: Collection[str], head: str, part: str) -> bool:
    return any(f"{module}.".startswith(f"{head}.{part}.") for module in modules)


def _copies(embedding: str) -> tuple[str, ...]:
    """Return the embeddings of encoder and decoder that T5 and BART tie to ``shared``."""
    match = _SHARED.fullmatch(embedding)
    if match is None:
        return ()
    head = match["head"] or ""
    return f"{head}encoder.embed_tokens", f"{head}decoder.embed_tokens"


def _said(config: Mapping[str, Any]) -> bool | None:
    """Return ``tie_word_embeddings`` of the configuration; None if it is absent."""
    for part in (config, *(value for key, value in config.items() if key.endswith("_config"))):
        if isinstance(part, dict) and isinstance(part.get("tie_word_embeddings"), bool):
            return bool(part["tie_word_embeddings"])
    return None
