"""Tensors and pairs of tensors that the tests of the layer codecs share."""

import numpy as np

from theta.codecs.base import Decoder, Encoded, LayerCodec, Range, Target, TensorWords, word_dtype, word_size
from theta.dtypes import DTYPES

CHUNK = 4 << 20
FLOATS = ("bf16", "f16", "f32", "f64")


def f32_to_bf16(values: np.ndarray) -> np.ndarray:
    """Round to nearest even, as the words of bf16 (no NaNs)."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_values(values: np.ndarray, dtype: str) -> TensorWords:
    """The float tensor that holds ``values``, rounded."""
    if dtype == "bf16":
        return TensorWords(dtype, values.shape, f32_to_bf16(values).ravel())
    plain = np.ascontiguousarray(values.astype({"f16": "<f2", "f32": "<f4", "f64": "<f8"}[dtype]))
    return TensorWords(dtype, values.shape, plain.ravel().view(word_dtype(dtype)))


def to_values(tensor: TensorWords) -> np.ndarray:
    """The values of a float tensor, as float64."""
    if tensor.dtype == "bf16":
        wide = (tensor.words.astype(np.uint32) << 16).view(np.float32)
    else:
        wide = tensor.words.view({"f16": "<f2", "f32": "<f4", "f64": "<f8"}[tensor.dtype])
    return wide.astype(np.float64).reshape(tensor.shape)


def any_bits(dtype: str, shape: tuple[int, ...], seed: int = 0) -> TensorWords:
    """Every bit pattern is likely, NaNs, infinities and subnormals included."""
    nbytes = DTYPES[dtype].nbytes(shape)
    return TensorWords.from_bytes(np.random.default_rng(seed).bytes(nbytes), dtype, shape)


def weights(dtype: str, shape: tuple[int, ...], seed: int = 0) -> TensorWords:
    """Normal weights of a plausible size."""
    return from_values(np.random.default_rng(seed).normal(0, 0.02, shape), dtype)


def nudged(tensor: TensorWords, size: float, seed: int = 1) -> TensorWords:
    """The tensor after a step of an optimiser of about ``size``."""
    step = np.random.default_rng(seed).normal(0, size, tensor.shape)
    return from_values(to_values(tensor) + step, tensor.dtype)


def with_words(tensor: TensorWords, words: np.ndarray) -> TensorWords:
    return TensorWords(tensor.dtype, tensor.shape, words.astype(tensor.words.dtype))


def chunks_of(tensor: TensorWords, limit: int = CHUNK) -> list[Range]:
    """The chunks of a tensor: whole rows where a row fits."""
    target = Target(tensor.dtype, tensor.shape)
    step = limit // word_size(tensor.dtype)
    if 0 < target.row_words <= step:
        step = step // target.row_words * target.row_words
    return [(k, min(k + step, target.words)) for k in range(0, target.words, step)]


def check(codec: LayerCodec, new: TensorWords, base: TensorWords, limit: int = CHUNK) -> Encoded:
    """Encode, decode every chunk (backwards), compare, and check that encoding is deterministic."""
    ranges = chunks_of(new, limit)
    encoded = codec.encode(new, base, ranges)
    assert encoded is not None
    assert encoded == codec.encode(new, base, ranges)
    decoder: Decoder = codec.decoder(encoded.shared, Target(new.dtype, new.shape), base)
    for payload, (start, stop) in reversed(list(zip(encoded.chunks, ranges, strict=True))):
        words = decoder.decode(memoryview(payload), start, stop)
        assert words.dtype == new.words.dtype
        np.testing.assert_array_equal(words, new.words[start:stop])
    return encoded


def ratio(encoded: Encoded, new: TensorWords) -> float:
    return encoded.size / new.words.nbytes
