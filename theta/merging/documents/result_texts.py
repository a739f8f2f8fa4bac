"""The files beside a result: its configuration, and the index of its shards."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, Final

from theta.errors import UsageError
from theta.formats import sharded
from theta.merging.documents.model_files import CONFIG, ModelFiles
from theta.store.format.manifest import Line

_LAYERS: Final = (
    "num_hidden_layers",
    "n_layer",
    "n_layers",
    "num_layers",
    "num_decoder_layers",
    "decoder_layers",
    "encoder_layers",
    "depth",
)
"""Keys of the number of layers."""
_INNER: Final = ("text_config", "llm_config", "language_config", "decoder")
"""Keys of the configuration of the language model in that of a larger one."""
_MOST_DEPTH: Final = 64
_MOST_VALUES: Final = 1 << 22
"""Values of a JSON, each of which takes up to 200 bytes of memory; the tokenizer of Gemma 3 has 2 million."""
_ROWS: Final = "vocab_size"
_MOST_PLACES: Final = 64
"""Places of a key that are tried; each takes as long as reading the JSON."""
_DTYPE_KEYS: Final = ("dtype", "torch_dtype")
_TORCH: Final = {"bf16": "bfloat16", "f16": "float16", "f32": "float32", "f64": "float64"}


def parsed(model: ModelFiles, name: str = CONFIG) -> dict[str, Any] | None:
    """Return the JSON object in a file beside ``model``; None when there is none."""
    data = model.texts.get(name)
    if data is None:
        return None
    if has_too_many(data):
        raise UsageError(f"{model.folder}{name} of {model.label} has more than {_MOST_VALUES} values")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{model.folder}{name} of {model.label} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{model.folder}{name} of {model.label} is no JSON object")
    if data.count(b"[") + data.count(b"{") > _MOST_DEPTH and _is_deep(found):
        raise UsageError(f"{model.folder}{name} of {model.label} is nested more than {_MOST_DEPTH} deep")
    return found


def has_too_many(data: bytes) -> bool:
    """Return whether a JSON has more values than are to be in memory."""
    return len(data) > _MOST_VALUES and sum(map(data.count, (b",", b"[", b"{"))) > _MOST_VALUES


def _is_deep(found: Any) -> bool:
    """Return whether a parsed JSON is too deep for functions that call themselves at each level."""
    waiting = [(found, 1)]
    while waiting:
        value, depth = waiting.pop()
        if depth > _MOST_DEPTH:
            return True
        inner = value.values() if isinstance(value, dict) else value
        waiting += [(one, depth + 1) for one in inner if isinstance(one, dict | list)]
    return False


def written(found: Mapping[str, Any]) -> bytes:
    """Return a JSON object as transformers writes it."""
    return (json.dumps(found, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")


def with_dtype(config: dict[str, Any], dtype: str | None) -> None:
    """Change the dtype in a configuration."""
    if dtype is not None:
        for key in _told(config) or _DTYPE_KEYS[-1:]:
            config[key] = _TORCH[dtype]


def _told(config: Mapping[str, Any]) -> list[str]:
    """Return the keys of a configuration that tell a dtype."""
    return [key for key in _DTYPE_KEYS if key in config]


def tells_other_dtype(config: Mapping[str, Any], dtype: str) -> bool:
    """Return whether a configuration tells a dtype, and another one."""
    return dtype in _TORCH and any(config[key] != _TORCH[dtype] for key in _told(config))


def in_dtype(data: bytes, dtype: str) -> bytes:
    """Return the configuration ``data`` with ``dtype``, if it tells another one.

    No other byte changes, unless the place of the dtype is not found: then the JSON is written anew.
    """
    try:
        config = parsed(ModelFiles("", "", {}, {CONFIG: data}))
    except UsageError:
        return data  # no configuration of a model
    if config is None or not tells_other_dtype(config, dtype):
        return data
    for key in _told(config):
        config[key] = _TORCH[dtype]
        data = _with_value(data, key, config)
    return data


def _with_value(data: bytes, key: str, config: Mapping[str, Any]) -> bytes:
    """Return the JSON ``data`` with that value of ``key`` which it has in ``config``.

    A section of it may have the same key, so that each place is tried.
    """
    places = re.finditer(rb'"%s"\s*:\s*("[^"\\]*"|null)' % key.encode(), data)
    wanted, value = json.dumps({**json.loads(data), key: config[key]}), json.dumps(config[key]).encode()
    for place in islice(places, _MOST_PLACES):
        trial = data[: place.start(1)] + value + data[place.end(1) :]
        if json.dumps(json.loads(trial)) == wanted:
            return trial
    return written(json.loads(wanted))


def rows(config: Mapping[str, Any]) -> int | None:
    """Return the number of rows of the embedding that a configuration tells; None if it tells none."""
    found = _of_rows(config).get(_ROWS)
    return found if type(found) is int and found >= 0 else None


def with_rows(config: dict[str, Any], rows: int) -> None:
    """Change the number of rows of the embedding in a configuration, wherever it tells the same one."""
    section = _of_rows(config)
    before = section.get(_ROWS)
    for one in (config, *(config[key] for key in _INNER if isinstance(config.get(key), dict))):
        if before is not None and one.get(_ROWS) == before:
            one[_ROWS] = rows
    section[_ROWS] = rows


def _of_rows(config: Any) -> Any:
    """Return the section of a configuration that tells, or may tell, the number of rows."""
    inner = next((config[key] for key in _INNER if isinstance(config.get(key), dict)), None)
    return inner if inner is not None and _ROWS in inner and _ROWS not in config else config


def with_layers(
    config: dict[str, Any], own: int, origins: Sequence[tuple[Mapping[str, Any] | None, int]]
) -> None:
    """Change the number of layers in a configuration of a model with ``own`` layers.

    A list with a value for each layer, such as ``layer_types``, gets those of the ``origins``: for each
    layer the configuration of its model, and its number there.
    """
    inner = _place(config, own)
    if inner is None:
        return
    section, key = inner
    for name, values in list(section.items()):
        if isinstance(values, list) and len(values) == own and "layer" in name:
            section[name] = [_of_layer(found, number, name, values) for found, number in origins]
    section[key] = len(origins)


def _place(config: dict[str, Any], own: int) -> tuple[dict[str, Any], str] | None:
    """Return the section of a configuration that tells the number of layers, and the key."""
    sections = [config, *(config[key] for key in _INNER if isinstance(config.get(key), dict))]
    found = [(section, key) for section in sections for key in _LAYERS if key in section]
    return next((pair for pair in found if pair[0][pair[1]] == own), None)


def _of_layer(config: Mapping[str, Any] | None, number: int, name: str, own: Sequence[Any]) -> Any:
    sections = [config or {}, *((config or {}).get(key) for key in _INNER)]
    for section in sections:
        values = section.get(name) if isinstance(section, dict) else None
        if isinstance(values, list) and number < len(values):
            return values[number]
    return own[min(number, len(own) - 1)]


def index(places: Mapping[str, str], lines: Mapping[str, Line], extra: Mapping[str, Any] | None) -> bytes:
    """Return the index of a model in shards, whose tensors are in the files ``places``."""
    total = sum(line.nbytes for line in lines.values())
    told = (extra or {}).get("metadata")
    metadata = {**(told if isinstance(told, dict) else {}), "total_size": total}
    names = {name: places[name].rpartition("/")[2] for name in sorted(places)}
    for file in set(names.values()):
        sharded.check_shard_name(file)
    return written({"metadata": metadata, "weight_map": names})
