"""The keys of a recipe that say what tokenizer its result has: ``tokenizer_source`` and ``tokenizer``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from theta.errors import UsageError
from theta.merging.documents.tokenizer_files import shown
from theta.merging.shapes import pursuit

UNION: Final = "union"
BASE: Final = "base"
AUTO: Final = "auto"
_KEYS: Final = {"source", "tokens", "pad_to_multiple_of", "approximation_method", "k"}
_MOST_ROWS: Final = 1 << 16


@dataclass(frozen=True)
class TokenSource:
    """The row that a token gets in models without it, or in all with ``force``.

    Attributes:
        model: the model that it is taken from; None for zeros.
        token: another token of that model, or its id; None for the token itself.
        force: models that have the token get the row too.
        is_open: no source is given, so that the usual one is taken.
    """

    model: str | None = None
    token: str | int | None = None
    force: bool = False
    is_open: bool = False


@dataclass(frozen=True)
class TokenizerKey:
    """The tokenizer that a recipe asks for.

    Attributes:
        source: ``union``, ``base`` or a model.
        tokens: token -> where its row comes from.
        multiple: the number of rows is padded to a multiple of this.
        terms: a row that a model lacks is a combination of so many others; 0 takes the row of another model.
    """

    source: str
    tokens: Mapping[str, TokenSource] = field(default_factory=dict)
    multiple: int = 1
    terms: int = 0

    @property
    def models(self) -> tuple[str, ...]:
        """The models that are named."""
        named = (one.model for one in self.tokens.values() if one.model is not None)
        return (*([self.source] if self.source not in (UNION, BASE) else []), *named)


def parse(body: Mapping[str, Any], label: str) -> TokenizerKey | None:
    """Return what a document says of the tokenizer; None if it says nothing.

    Raises :class:`UsageError` that names ``label`` and key.
    """
    source, found = body.get("tokenizer_source"), body.get("tokenizer")
    if source is not None and found is not None:
        raise UsageError(f"{label}: give tokenizer_source or tokenizer, not both")
    if found is None:
        return None if source is None else TokenizerKey(_source(source, label))
    if not isinstance(found, dict) or set(found) - _KEYS:
        raise UsageError(f"{label}: tokenizer has {', '.join(map(repr, sorted(_KEYS)))}")
    tokens = found.get("tokens") or {}
    if not isinstance(tokens, dict):
        raise UsageError(f"{label}: tokens is a mapping of tokens to their sources")
    multiple = found.get("pad_to_multiple_of") or 1
    if type(multiple) is not int or not 1 <= multiple <= _MOST_ROWS:
        raise UsageError(f"{label}: pad_to_multiple_of is a whole number from 1 to {_MOST_ROWS}")
    parsed = {str(token): _token(one, f"{label}: token {token!r}") for token, one in tokens.items()}
    return TokenizerKey(_source(found.get("source", UNION), label), parsed, multiple, _terms(found, label))


def _terms(found: Mapping[str, Any], label: str) -> int:
    """Return the number of rows in a combination, with the words of mergekit-tokensurgeon; 0 for none."""
    method, terms = found.get("approximation_method", "mean"), found.get("k", 64)
    if method not in ("mean", "omp"):
        raise UsageError(f"{label}: approximation_method is mean or omp, not {shown(method)}")
    if type(terms) is not int or not 1 <= terms <= pursuit.MOST:
        raise UsageError(f"{label}: k is a whole number from 1 to {pursuit.MOST}")
    if "k" in found and method != "omp":
        raise UsageError(f"{label}: k goes with approximation_method: omp")
    return terms if method == "omp" else 0


def template(body: Mapping[str, Any], label: str) -> str:
    """Return the chat template of a document: its text, ``auto``, or empty."""
    found = body.get("chat_template")
    if found is None:
        return ""
    if not isinstance(found, str) or (found != AUTO and "{" not in found):
        raise UsageError(
            f"{label}: chat_template is auto or the text of a template, and theta knows none by name",
            hint="put its text into the recipe: chat_template: |",
        )
    return found


def _source(found: Any, label: str) -> str:
    if not isinstance(found, str) or not found:
        raise UsageError(f"{label}: the source of a tokenizer is union, base, or a model")
    return found


def _token(found: Any, where: str) -> TokenSource:
    if not isinstance(found, dict) or set(found) - {"source", "force"}:
        raise UsageError(f"{where} has 'source' and 'force'")
    source, force = found.get("source"), found.get("force", False)
    if not isinstance(force, bool):
        raise UsageError(f"{where}: force is true or false")
    if source is None and not force:
        return TokenSource(is_open=True)
    if isinstance(source, str):
        return TokenSource(source, None, force)
    if isinstance(source, dict) and source.get("kind") == "zero" and set(source) == {"kind"}:
        return TokenSource(None, None, force)
    if (
        isinstance(source, dict)
        and source.get("kind") == "model_token"
        and isinstance(source.get("model"), str)
    ):
        token = source.get("token_id", source.get("token"))
        if ("token" in source) != ("token_id" in source) and type(token) in (int, str):
            return TokenSource(source["model"], token, force)
    raise UsageError(
        f"{where}: source is a model, {{kind: zero}}, or {{kind: model_token, model: M, token: TOKEN}}"
    )
