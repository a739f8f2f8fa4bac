"""The chat template of a result: in a file of its own, as transformers writes it, or in the configuration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from theta.merging.documents import result_texts
from theta.merging.documents.model_files import ModelFiles
from theta.merging.documents.recipe_document import Document
from theta.merging.documents.tokenizer_keys import AUTO

_FILE: Final = "chat_template.jinja"
_CONFIG: Final = "tokenizer_config.json"
_KEY: Final = "chat_template"


def with_template(
    document: Document, result: ModelFiles, models: Mapping[str, ModelFiles]
) -> Mapping[str, bytes]:
    """Return the files beside ``result`` with the chat template that ``document`` asks for.

    ``auto`` is the template of most ``models``, the earlier one of equals.
    """
    text = document.chat_template
    if text == AUTO:
        text = _commonest(models.values())
    if not text:
        return result.texts
    texts = {**result.texts, _FILE: text.encode("utf-8", "surrogatepass")}
    config = result_texts.parsed(result, _CONFIG)
    if config is not None and config.pop(_KEY, None) is not None:
        texts[_CONFIG] = result_texts.written(config)
    return texts


def _commonest(models: Iterable[ModelFiles]) -> str:
    found = Counter(text.strip() for model in models if (text := _of(model)))
    return found.most_common(1)[0][0] if found else ""


def _of(model: ModelFiles) -> str:
    """Return the template of ``model``; empty without one."""
    if _FILE in model.texts:
        return model.texts[_FILE].decode("utf-8", "replace")
    found: Any = (result_texts.parsed(model, _CONFIG) or {}).get(_KEY)
    if isinstance(found, list):  # several by name
        defaults = (one for one in found if isinstance(one, dict) and one.get("name") == "default")
        found = next(defaults, {}).get("template")
    return found if isinstance(found, str) else ""
