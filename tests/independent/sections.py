"""Sections of byte planes, and entropy sections (codecs.md: planes, tokens, rans, entropy)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import zstandard

from tests.independent.primitives import Cursor, refuse, require

_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_FLOOR: Final = 1 << 16
"""The lowest value of a state between two tokens."""


def planes(cursor: Cursor, lengths: Sequence[int], nested: bool = False) -> list[bytes]:
    """Read a section of planes of known lengths; ``nested`` in an entropy section."""
    heads = [(cursor.uint(1), cursor.uint(4)) for _ in lengths]
    stored = [(method, cursor.take(size)) for method, size in heads]
    return [
        _plane(method, payload, length, nested)
        for (method, payload), length in zip(stored, lengths, strict=True)
    ]


def _plane(method: int, payload: bytes, length: int, nested: bool) -> bytes:
    require(length > 0 or method == 0, "a plane of no bytes is not stored raw")
    if method == 0:
        require(len(payload) == length, "a raw plane has another length")
        return payload
    if method == 1:
        return _zstd(payload, length)
    if method == 2:
        require(len(payload) == 1, "a constant plane is not one byte")
        return payload * length
    require(method == 3 and not nested, f"a plane has method {method}")
    cursor = Cursor(payload)
    found = bytes(entropy(cursor, [0] * length, 8))
    cursor.end()
    return found


def _zstd(payload: bytes, length: int) -> bytes:
    require(payload[:4] == _ZSTD_MAGIC, "a plane is no Zstandard frame")
    try:
        parameters = zstandard.get_frame_parameters(payload)
        require(parameters.content_size == length, "a Zstandard frame has another content size")
        require(parameters.dict_id == 0, "a Zstandard frame needs a dictionary")
        found = zstandard.ZstdDecompressor().decompress(
            payload, max_output_size=length, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        refuse(f"Zstandard: {error}")
    require(len(found) == length, "a Zstandard frame has another length")
    return found


class _Table:
    """The frequencies of a cluster's tokens, as a table of the 4096 slots."""

    def __init__(self, frequencies: Sequence[int]) -> None:
        require(sum(frequencies) == 4096, "frequencies do not add up to 4096")
        self.slots: list[tuple[int, int, int]] = []
        """(token, frequency, slot counted from the token's first) of each slot."""
        for token, frequency in enumerate(frequencies):
            self.slots += [(token, frequency, place) for place in range(frequency)]


def entropy(cursor: Cursor, contexts: Sequence[int], bits: int) -> list[int]:
    """Read an entropy section: a value of at most ``bits`` bits for each context."""
    small, fine, clusters = cursor.uint(1), cursor.uint(1), cursor.uint(1)
    require(fine <= small <= 8 and fine <= 2 and 1 <= clusters <= 64, "an entropy section has a bad head")
    words = cursor.uint(4)
    states = cursor.uints(4, 4)
    of_context, tables = _tables(cursor, sorted(set(contexts)), clusters, (bits, small, fine))
    stream = cursor.uints(2, words)
    tokens = _tokens(stream, states, [tables[of_context[context]] for context in contexts])
    return _values(cursor, tokens, bits, small, fine)


def _tables(
    cursor: Cursor, contexts: Sequence[int], clusters: int, sizes: tuple[int, int, int]
) -> tuple[dict[int, int], list[_Table]]:
    """Read the cluster of each context, and the frequencies of each cluster."""
    chosen, counted = planes(cursor, [len(contexts) if clusters > 1 else 0, 2 * clusters], nested=True)
    require(all(cluster < clusters for cluster in chosen), "a context has no cluster")
    counts = [int.from_bytes(counted[at : at + 2], "little") for at in range(0, 2 * clusters, 2)]
    bits, small, fine = sizes
    most = (1 << small) + (max(bits - small, 0) << fine)
    require(all(count <= most for count in counts), "a cluster has more tokens than there are")
    low, high = planes(cursor, [sum(counts)] * 2, nested=True)
    frequencies = [a | b << 8 for a, b in zip(low, high, strict=True)]
    tables, at = [], 0
    for count in counts:
        tables.append(_Table(frequencies[at : at + count]))
        at += count
    return dict(zip(contexts, chosen or bytes(len(contexts)), strict=True)), tables


def _tokens(stream: Sequence[int], states: list[int], tables: Sequence[_Table]) -> list[int]:
    require(all(state >= _FLOOR for state in states), "a state is too low")
    found, at = [], 0
    for number, table in enumerate(tables):
        state = states[number % 4]
        token, frequency, place = table.slots[state & 4095]
        state = frequency * (state >> 12) + place
        if state < _FLOOR:
            require(at < len(stream), "a stream of tokens is cut short")
            state = state << 16 | stream[at]
            at += 1
        states[number % 4] = state
        found.append(token)
    require(at == len(stream) and states == [_FLOOR] * 4, "a stream of tokens does not end where it began")
    return found


def _values(cursor: Cursor, tokens: Sequence[int], bits: int, small: int, fine: int) -> list[int]:
    """Add raw bits to tokens."""
    lengths = [_raw_bits(token, small, fine) for token in tokens]
    total = sum(lengths)
    raw = int.from_bytes(cursor.take((total + 7) // 8), "little")
    require(raw >> total == 0, "raw bits are not padded with zeros")
    data, at, found = raw.to_bytes((total + 7) // 8 + 9, "little"), 0, []
    for token, length in zip(tokens, lengths, strict=True):
        value = token
        if token >= 1 << small:
            top = 1 << fine | (token - (1 << small)) & ((1 << fine) - 1)
            window = int.from_bytes(data[at >> 3 : (at >> 3) + 9], "little") >> (at & 7)
            value = top << length | window & ((1 << length) - 1)
        require(value < 1 << bits, "a value is too large")
        at += length
        found.append(value)
    return found


def _raw_bits(token: int, small: int, fine: int) -> int:
    return 0 if token < 1 << small else ((token - (1 << small)) >> fine) + small - fine
