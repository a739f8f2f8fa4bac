"""The choice of the codec and the base that store a tensor in the fewest bytes.

Codecs that code word by word (delta, steps, nudges, sparse, cast) are estimated on a sample of the chunks;
those that need a structure to be there (rows, scaled, low rank) look for it on a sample first,
and are run in full only where they find it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from theta import _kernels as kernels
from theta._numpy import np
from theta.codecs import cast, delta, dense, lowrank, residual, rows, scaled, sparse, steps
from theta.codecs.base import Each, Encoded, Range, Target, TensorWords
from theta.codecs.moves import nudges
from theta.dtypes import DTYPES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Words = NDArray[Any]

_SLICES: Final = 8
_SLICE_WORDS: Final = 1 << 13
_FEWER: Final = 4
"""The number of slices of a sample, and of a part of it."""
_SPARSE_SHARE: Final = 0.4
_FEW: Final = 0.1
"""The share of words that differ up to which steps/1, which is decoded by these, is faster than delta/1."""
_HARDLY_ANY: Final = 0.045
_SOME: Final = 0.25
"""The shares between which nudges/1, which is decoded word by word, is faster than both."""
_MANY: Final = 1 << 15
"""The words from which the heads of these two, which are longer than that of delta/1, do not matter."""
_FAR: Final = 0.3
"""The share of the bits of a word from which on differences are no better than new words."""
_NEAR: Final = 0.5
"""The share of what a word takes alone below which the lengths of differences need no closer look."""
_ROUGHLY: Final = 0.9
"""The share of a price by a part of the sample that a layer takes at most to be smaller for sure."""
_LITTLE: Final = 1 << 10
"""Bytes of a layer up to which it is compared with more than a rough price."""
_FAR_LESS: Final = 0.25
"""The share of the lengths of differences below which a layer with structure is the smallest for sure."""

TryEncode = Callable[[TensorWords, TensorWords, Sequence[Range]], Encoded | None]


@dataclass(frozen=True)
class Choice:
    """An encoded layer, and the index of the base it rests on (None: dense, on nothing).

    ``alone`` is about the bytes that it would take on nothing.
    """

    base: int | None
    encoded: Encoded
    alone: float


@dataclass(frozen=True)
class _Candidate:
    """A codec that fits, with about the bytes that it will take."""

    base: int
    encode: TryEncode
    size: float


def encode_dense(new: TensorWords, ranges: Sequence[Range]) -> Encoded:
    """Encode the chunks ``ranges`` of ``new``, each on its own."""
    rotate = dense.is_rotated(new.dtype)
    return Encoded(dense.NAME, None, tuple(dense.encode_words(new.read(*r), rotate) for r in ranges))


def sample_ranges(
    ranges: Sequence[Range], slices: int = _SLICES, words: int = _SLICE_WORDS
) -> Sequence[Range]:
    """Return so many slices of so many of the chunks' words, as ranges; all of them if they are few.

    Slices are at fixed, even distances.
    """
    total = sum(stop - start for start, stop in ranges)
    if total <= slices * words:
        return ranges
    begins = [k * (total - words) // (slices - 1) for k in range(slices)]
    found, before = [], 0
    for start, stop in ranges:
        # The words of this chunk are the numbers from `before` on, of all words of the chunks.
        shift, after = start - before, before + stop - start
        parts = ((max(begin, before), min(begin + words, after)) for begin in begins)
        found += [(first + shift, last + shift) for first, last in parts if first < last]
        before = after
    return found


def _fewer(sample: Sequence[Range]) -> Sequence[Range]:
    """Return a quarter of a sample; all of it if it has few words."""
    if len(sample) >= _SLICES:
        return sample[1::4]
    total = sum(stop - start for start, stop in sample)
    return sample_ranges(sample, _FEWER, total // (4 * _FEWER)) if total > _SLICE_WORDS else sample


def _sampled(tensor: TensorWords, sample: Sequence[Range]) -> TensorWords:
    """Return the words of ``sample``, as a tensor of one axis of a dtype that is coded alike."""
    kind = DTYPES[tensor.dtype].kind
    alike = "f32" if kind == "complex" else "u8" if kind in ("packed", "bytes") else tensor.dtype
    words = np.concatenate([tensor.words[first:last] for first, last in sample])
    return TensorWords(alike, (words.size,), words)


def _word_codecs(new: TensorWords, base: TensorWords) -> list[TryEncode]:
    """Return the codecs of single words that may pay for a sample of ``new`` and ``base``."""
    if base.dtype != new.dtype:
        return [cast.encode]
    changed = new.words != base.words
    share = np.count_nonzero(changed) / max(new.words.size, 1)
    if not 0 < share < _SPARSE_SHARE:
        return [delta.encode]
    found = [_of_small_steps(new, share)]
    far = _mean_length(new.dtype, new.words[changed], base.words[changed])
    return [*found, sparse.encode] if far > _FAR * 8 * new.words.itemsize else found


def _of_small_steps(new: TensorWords, share: float) -> TryEncode:
    """Return the codec of differences that is decoded fastest where such a share of words differs."""
    if new.words.size < _MANY:
        return delta.encode
    if new.dtype in nudges.DTYPES and _HARDLY_ANY <= share < _SOME:
        return nudges.encode
    return steps.encode if share < _FEW else delta.encode


def _mean_length(dtype: str, words: Words, base: Words) -> float:
    """Return the mean bits of differences."""
    differences = kernels.differences.difference(words, base, residual.is_float(dtype))
    return float(kernels.contexts.lengths(differences).mean())


@dataclass(frozen=True)
class _Near:
    """A base whose differences are short: about so many bits a word, by a codec of single words."""

    base: int
    bits: float
    encode: TryEncode


def _near(index: int, new: TensorWords, base: TensorWords, sample: Sequence[Range]) -> _Near | None:
    """Return how near ``base`` is; None unless one codec alone of single words is for it."""
    if not delta.fits(Target(new.dtype, new.shape), base):
        return None
    part, base_part = _sampled(new, sample), _sampled(base, sample)
    codecs = _word_codecs(part, base_part)
    bits = _mean_length(part.dtype, part.words, base_part.words)
    return _Near(index, bits, codecs[0]) if len(codecs) == 1 else None


def _nearest(new: TensorWords, bases: Sequence[TensorWords], sample: Sequence[Range]) -> _Near | None:
    """Return the base with the smallest differences; None unless one codec is for each of the bases."""
    found = [_near(k, new, base, sample) for k, base in enumerate(bases)]
    sure = [one for one in found if one is not None]
    return min(sure, key=lambda one: one.bits, default=None) if len(sure) == len(found) else None


def _word_candidates(
    index: int, new: TensorWords, base: TensorWords, sample: Sequence[Range], total: int
) -> list[_Candidate]:
    """Estimate the codecs of single words for one base."""
    target, other = Target(new.dtype, new.shape), Target(base.dtype, base.shape)
    if target.words != other.words or not (delta.fits(target, base) or cast.fits(target, base)):
        return []
    part, base_part = _sampled(new, sample), _sampled(base, sample)
    found = []
    for encode in _word_codecs(part, base_part):
        encoded = encode(part, base_part, [(0, part.words.size)])
        if encoded is not None:
            found.append(_Candidate(index, encode, encoded.size * total / part.words.size))
    return found


def _structured(
    new: TensorWords, base: TensorWords, ranges: Sequence[Range], hidden: bool = True
) -> Encoded | None:
    """Return the smallest encoding by a codec that needs a structure; None when none finds it."""
    target = Target(new.dtype, new.shape)
    if target.words != Target(base.dtype, base.shape).words:
        return rows.encode(new, base, ranges)
    found = scaled.encode(new, base, ranges)
    if found is not None:
        return found
    options = [rows.encode(new, base, ranges), lowrank.encode(new, base, ranges, hidden)]
    return min((o for o in options if o is not None), key=lambda o: o.size, default=None)


def _by_chunks(
    encode: TryEncode, new: TensorWords, base: TensorWords, ranges: Sequence[Range], each: Each
) -> Encoded | None:
    """Encode the chunks by a codec of single words, each on its own."""
    found: list[Encoded | None] = list(each(lambda one: encode(new, base, [one]), ranges))
    parts = [part for part in found if part is not None]
    if len(parts) < len(found):
        return None
    return Encoded(parts[0].codec, None, tuple(part.chunks[0] for part in parts))


def choose(
    new: TensorWords,
    bases: Sequence[TensorWords],
    ranges: Sequence[Range],
    each: Each = map,
    structure: bool = True,
    hidden: bool = True,
) -> Choice:
    """Return the cheapest encoding found of the chunks ``ranges`` (at least one, none empty) of ``new``.

    ``bases`` are candidates of any dtype and shape, the likeliest first; of two that cost the
    same, the first is taken.  ``each`` runs through the chunks in the end.  Without ``structure``, what
    there is of that is not looked for in bases of as many words; without ``hidden``, factors are looked for
    only where they show at a glance.
    """
    sample = sample_ranges(ranges)
    total = sum(stop - start for start, stop in ranges)
    nearest = _nearest(new, bases, sample)

    @cache
    def structured(index: int) -> Encoded | None:
        wanted = structure or bases[index].words.size != new.words.size
        return _structured(new, bases[index], ranges, hidden) if wanted else None

    if nearest is not None:
        index, bits = nearest.base, nearest.bits
        rough = _price_alone(new, _fewer(sample), total)
        encoded = structured(index)
        if encoded is not None and 8 * encoded.size < _FAR_LESS * bits * total:
            return Choice(index, encoded, rough)
        if encoded is None and bits * total < _NEAR * 8 * rough:
            encoded = _by_chunks(nearest.encode, new, bases[index], ranges, each)
            if encoded is not None and encoded.size < _ROUGHLY * rough:
                # The tables of a part are scaled with it, which counts where next to nothing is stored.
                rough = rough if encoded.size > _LITTLE else _price_alone(new, sample, total)
            if encoded is not None and encoded.size < _ROUGHLY * rough:
                return Choice(index, encoded, rough)
    dense_size = _price_alone(new, sample, total)
    words = [c for k, base in enumerate(bases) for c in _word_candidates(k, new, base, sample, total)]
    best = min(words, key=lambda candidate: candidate.size, default=None)
    limit = min(best.size if best else dense_size, dense_size)
    found: list[Choice] = []
    for index in _near_first(bases, words):
        encoded = structured(index)
        if encoded is not None and encoded.size < limit:
            found.append(Choice(index, encoded, dense_size))
            limit = encoded.size
    if not found and best is not None and best.size < dense_size:
        encoded = _by_chunks(best.encode, new, bases[best.base], ranges, each)
        if encoded is not None:
            found.append(Choice(best.base, encoded, dense_size))
    if found and found[-1].encoded.size < dense_size:
        return found[-1]
    return Choice(None, encode_dense(new, ranges), dense_size)


def price(new: TensorWords, base: TensorWords, ranges: Sequence[Range], structure: bool = True) -> float:
    """Estimate the bytes that the chunks take on ``base``; infinity when no codec fits.

    Without ``structure``, codecs of single words alone are looked at.
    """
    sample, total = sample_ranges(ranges), sum(stop - start for start, stop in ranges)
    sizes = [candidate.size for candidate in _word_candidates(0, new, base, sample, total)]
    found = _structured(new, base, ranges) if structure else None
    return min([*sizes, *([found.size] if found else [])], default=float("inf"))


def price_alone(new: TensorWords, ranges: Sequence[Range]) -> float:
    """Estimate the bytes that the chunks take without a base."""
    return _price_alone(new, sample_ranges(ranges), sum(stop - start for start, stop in ranges))


def _price_alone(new: TensorWords, sample: Sequence[Range], total: int) -> float:
    part = _sampled(new, sample)
    return encode_dense(part, [(0, part.words.size)]).size * total / part.words.size


def _near_first(bases: Sequence[TensorWords], words: Sequence[_Candidate]) -> list[int]:
    """Return the bases worth a search for structure: the nearest of equal size, and all of other sizes."""
    nearest = min(words, key=lambda candidate: candidate.size).base if words else -1
    sizes = {candidate.base for candidate in words}
    return [k for k in range(len(bases)) if k == nearest or k not in sizes]
