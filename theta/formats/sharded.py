"""Hugging Face's sharded models: several files and an index from tensor to file.

``model.safetensors.index.json`` and ``pytorch_model.bin.index.json`` have the same form:
``{"metadata": {"total_size": N}, "weight_map": {TENSOR: FILE}}``.  The functions here read no files: the
caller passes the text of the index.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from theta.errors import FormatError
from theta.formats import json_text
from theta.formats.layout import MAX_TENSORS, TensorSpec, clip, nbytes

SUFFIX: Final = ".index.json"
MAX_INDEX: Final = 256 * 2**20
MAX_EXTRA: Final = 64 * 1024
MAX_SHARDS: Final = 99_999
_WHAT: Final = "model index"
_SHARD_RE: Final = re.compile(
    r"(?P<stem>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})(?P<suffix>\.[^./\\]+)"
)
_UNSAFE_RE: Final = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f]')


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """The content of an index: tensor -> file, and ``total_size`` in bytes, or None."""

    weight_map: Mapping[str, str]
    total_size: int | None

    @property
    def shards(self) -> tuple[str, ...]:
        """The sorted names of the files."""
        return tuple(sorted(set(self.weight_map.values())))


@dataclass(frozen=True, slots=True)
class ShardName:
    """The parts of a name such as ``model-00001-of-00003.safetensors``."""

    stem: str
    number: int
    count: int
    suffix: str


def read_index(data: bytes) -> ShardIndex:
    """Parse an index; raises ``FormatError`` for another form and for unsafe file names."""
    if len(data) > MAX_INDEX:
        raise FormatError(f"{_WHAT}: {len(data)} bytes; the limit is {MAX_INDEX}")
    text = data.strip(b" \t\r\n")
    if not text.startswith(b"{"):
        raise FormatError(f"{_WHAT}: it is not a JSON object")
    weight_map: dict[str, str] | None = None
    total_size: int | None = None
    seen: set[str] = set()
    position, more = 1, True
    while more:
        name, position = json_text.key(text, position, _WHAT)
        if name in seen or len(seen) > 100:
            raise FormatError(f"{_WHAT}: {clip(name)} is there twice, or one too many")
        seen.add(name)
        if name == "weight_map":
            weight_map, position = json_text.text_map(text, position, f"{_WHAT}: weight_map", MAX_TENSORS)
        else:
            value, position = _small_value(text, position)
            if name == "metadata":
                total_size = _total_size(value)
        position, more = json_text.separator(text, position, _WHAT)
    if weight_map is None or position != len(text):
        raise FormatError(f"{_WHAT}: no weight_map, or text behind the end")
    for shard in set(weight_map.values()):
        check_shard_name(shard)
    return ShardIndex(weight_map, total_size)


def check_shard_name(name: str) -> None:
    """Raise ``FormatError`` unless ``name`` is a file in the same directory on every system."""
    if (
        _UNSAFE_RE.search(name)
        or name.strip(". ") != name.lstrip(" ")
        or not name
        or len(name.encode()) > 255
    ):
        raise FormatError(f"{_WHAT}: unsafe file name {clip(name)}")


def parse_shard_name(name: str) -> ShardName | None:
    """Parse the name of a shard; None for other names and impossible numbers."""
    match = _SHARD_RE.fullmatch(name)
    if match is None:
        return None
    number, count = int(match["number"]), int(match["count"])
    return ShardName(match["stem"], number, count, match["suffix"]) if 1 <= number <= count else None


def model_of(path: str) -> str:
    """Return the path that the model of shard ``path`` would have as one file; ``path`` for other files."""
    folder, slash, name = path.rpartition("/")
    shard = parse_shard_name(name)
    return path if shard is None else f"{folder}{slash}{shard.stem}{shard.suffix}"


def plan_shards(specs: Sequence[TensorSpec], limit: int) -> tuple[tuple[TensorSpec, ...], ...]:
    """Divide ``specs``, in their order, into shards of at most ``limit`` bytes of tensors.

    As in ``huggingface_hub``, a larger tensor gets its own shard, and the current shard is continued.
    """
    if limit < 1:
        raise FormatError("the limit of a shard is at least one byte")
    shards: list[tuple[TensorSpec, ...]] = []
    current: list[TensorSpec] = []
    filled = 0
    for spec in specs:
        length = nbytes(spec.name, spec.dtype, spec.shape)
        if length > limit:
            shards.append((spec,))
            continue
        if filled + length > limit:
            shards.append(tuple(current))
            current, filled = [], 0
        current.append(spec)
        filled += length
    if current:
        shards.append(tuple(current))
    return tuple(shards)


def shard_names(count: int, stem: str = "model", suffix: str = ".safetensors") -> tuple[str, ...]:
    """Return the file names of ``count`` shards; a single one has no number."""
    if not 0 <= count <= MAX_SHARDS:
        raise FormatError(f"{count} shards; the limit is {MAX_SHARDS}")
    if count == 1:
        return (f"{stem}{suffix}",)
    return tuple(f"{stem}-{number:05d}-of-{count:05d}{suffix}" for number in range(1, count + 1))


def write_index(weight_map: Mapping[str, str], total_size: int) -> bytes:
    """Return the text of an index as ``huggingface_hub`` writes it."""
    content = {"metadata": {"total_size": total_size}, "weight_map": dict(weight_map)}
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()


def _small_value(text: bytes, position: int) -> tuple[object, int]:
    """Parse any JSON value of at most 64 KiB; return it and the position after it and white space."""
    # In latin-1, positions in the text and the bytes are the same; only numbers are used.
    window = text[position : position + MAX_EXTRA].decode("latin-1")
    decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse)
    try:
        value, end = decoder.raw_decode(window)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{_WHAT}: no value of a sensible size at byte {position}") from error
    return value, json_text.skip_space(text, position + end)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key is there twice")
    return dict(pairs)


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")


def _total_size(metadata: object) -> int | None:
    """Return ``total_size``, which some writers make a float; None when it is not an integer."""
    size = metadata.get("total_size") if isinstance(metadata, dict) else None
    if isinstance(size, float) and size.is_integer():
        size = int(size)
    return size if isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 2**63 else None
