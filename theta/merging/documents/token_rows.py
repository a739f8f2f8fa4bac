"""Embeddings and heads whose rows are merged by token.

Each input becomes a matrix with a row for each token of the result; then the method merges these.  All
matrices of one tensor are in memory at the same time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from theta._numpy import np
from theta.codecs.base import word_dtype
from theta.errors import UsageError
from theta.merging import computing, storing
from theta.merging.computing import Task
from theta.merging.documents.model_files import is_of_tokens
from theta.merging.documents.stacks import ResultTensor
from theta.merging.documents.vocabularies import Vocabulary
from theta.merging.reading import opened
from theta.merging.shapes import pursuit
from theta.merging.shapes.pursuit import MatrixRows
from theta.merging.states import Conflict
from theta.merging.storing import Streamed
from theta.merging.strategies import one_tensor
from theta.merging.strategies.method import Read, Statistic
from theta.merging.strategies.numbers import narrow, widen
from theta.store.format.manifest import Line
from theta.store.odb.objects import Objects
from theta.store.write.layer_plan import Planned

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


@dataclass(frozen=True)
class TokenMatrix:
    """An input with a row for each token of the result: its words, and a line that tells their digest."""

    line: Line
    words: Array


class _Inputs:
    """Matrices in memory as the inputs of a method."""

    def __init__(self, sides: Sequence[Array], base: Array | None) -> None:
        self._sides, self._base = sides, base

    def read(self, start: int, stop: int) -> Read:
        """Return the words of the elements ``start:stop``."""
        base = None if self._base is None else self._base[start:stop]
        return Read(tuple(side[start:stop] for side in self._sides), base)

    def statistic(self, number: int) -> Statistic | None:  # noqa: ARG002 - of the protocol
        """Return None: no statistic has rows by token."""
        return None


def has_rows(one: ResultTensor, vocabulary: Vocabulary) -> bool:
    """Return whether the rows of a tensor are those of tokens in any of its models."""
    named = zip(one.frame.sources, (*one.inputs, one.base), strict=False)
    sizes = [(vocabulary.sizes[source.model], line) for source, line in named if line is not None]
    found = any(line.shape[:1] == (size,) or (size is None and line.shape) for size, line in sizes)
    return found and is_of_tokens(one.name)


def aligned(
    objects: Objects, one: ResultTensor, vocabulary: Vocabulary
) -> tuple[list[TokenMatrix | None], TokenMatrix | None]:
    """Return the inputs of a tensor, and its base, with a row for each token of the result.

    Raises :class:`UsageError` for inputs of different widths, or without a row for a token.
    """
    lines = [line for line in (*one.inputs, one.base) if line is not None]
    if len({line.shape[1:] for line in lines}) > 1:
        raise UsageError(f"{one.name}: the models differ in more than their tokens")
    dtypes = {line.dtype for line in lines}
    dtype = dtypes.pop() if len(dtypes) == 1 else "f64" if "f64" in dtypes else "f32"
    named = dict(zip((source.model for source in one.frame.sources), (*one.inputs, one.base), strict=False))
    rows = _Rows(objects, one.name, dtype, {name: line for name, line in named.items() if line is not None})
    made = rows.made(vocabulary)
    inputs = [made.get(source.model) for source in one.frame.inputs]
    return inputs, made.get(one.frame.base.model) if one.frame.base is not None else None


class _Rows:
    """The old matrices of one tensor by the name of the model, in one dtype."""

    def __init__(self, objects: Objects, name: str, dtype: str, lines: dict[str, Line]) -> None:
        self._name, self._dtype, self._lines = name, dtype, lines
        self._rest = next(iter(lines.values())).shape[1:]
        self._old = {model: self._read(objects, line) for model, line in lines.items()}

    def _read(self, objects: Objects, line: Line) -> Array:
        stored = opened(objects, line)
        words = stored.read(0, line.nbytes // word_dtype(line.dtype).itemsize)
        if line.dtype != self._dtype:
            words = narrow(widen(words, line.dtype), self._dtype)
        return words.reshape(line.shape[0], -1)

    def made(self, vocabulary: Vocabulary) -> dict[str, TokenMatrix]:
        """Return the new matrices."""
        count = vocabulary.count
        rows = {model: np.array(vocabulary.rows[model], np.int64) for model in self._old}
        for model, old in self._old.items():
            if rows[model].max(initial=-1) >= len(old):
                raise UsageError(
                    f"{self._name} of {model} has {len(old)} rows, and its tokenizer more tokens"
                )
        forced = np.zeros(count, bool)
        forced[[number for number, source in vocabulary.sources.items() if source.force]] = True
        usual = self._usual(rows, vocabulary, count)
        found = {}
        for model, old in self._old.items():
            new = np.zeros((vocabulary.padded, old.shape[1]), old.dtype)
            own = (rows[model] >= 0) & ~forced
            new[:count][own] = old[rows[model][own]]
            new[:count][~own] = usual[~own]
            if vocabulary.terms and old.shape[1] > 1:
                self._combine(model, new, rows, vocabulary)
            if vocabulary.padded > count:
                new[count:] = narrow(
                    widen(new[:count].reshape(-1), self._dtype).reshape(count, -1).mean(0), self._dtype
                )
            found[model] = self._matrix(new)
        return found

    def _combine(self, model: str, new: Array, rows: dict[str, Array], vocabulary: Vocabulary) -> None:
        """Write rows of ``new`` that ``model`` lacks as combinations of its own; ``pursuit`` says how."""
        own, old = rows[model], self._old[model]
        wanted = own < 0
        wanted[[*vocabulary.sources]] = False
        for donor in sorted(self._old.keys() - {model}, key=lambda name: name != vocabulary.base):
            theirs, donated = rows[donor], self._old[donor]
            tokens, both = np.flatnonzero(wanted & (theirs >= 0)), np.flatnonzero((own >= 0) & (theirs >= 0))
            if not len(both) or not len(tokens):
                continue
            wanted[tokens] = False
            width = old.shape[1]
            targets = MatrixRows(len(tokens), width, partial(self._taken, donated, theirs[tokens]))
            shared = MatrixRows(len(both), width, partial(self._taken, donated, theirs[both]))
            for one in pursuit.combinations(targets, shared, vocabulary.terms):
                parts = self._taken(old, own[both], one.numbers.reshape(-1))
                new[tokens[one.start : one.stop]] = self._round(one.sums(parts).astype(parts.dtype))

    def _taken(self, old: Array, rows: Array, numbers: Array) -> Array:
        """Return the values of the rows of ``old`` that ``rows`` has for ``numbers``."""
        return self._wide(old[rows[numbers]])

    def _matrix(self, new: Array) -> TokenMatrix:
        digest = hashlib.blake2b(new.data, digest_size=20).hexdigest()
        return TokenMatrix(
            Line(self._name, self._dtype, (len(new), *self._rest), digest, ""), new.reshape(-1)
        )

    def _usual(self, rows: dict[str, Array], vocabulary: Vocabulary, count: int) -> Array:
        """Return for each token the row that models without it get."""
        width = next(iter(self._old.values())).shape[1]
        usual = np.zeros((count, width), word_dtype(self._dtype))
        has = {model: own >= 0 for model, own in rows.items()}
        number = np.sum(list(has.values()), axis=0)
        base = has.get(vocabulary.base or "", np.zeros(count, bool))
        for model, old in self._old.items():
            only = has[model] & ((number == 1) | (base & (model == vocabulary.base)))
            usual[only] = old[rows[model][only]]
        shared = (number > 1) & ~base
        usual[shared] = self._means(rows, has, shared)
        for token, source in vocabulary.sources.items():
            usual[token] = 0 if source.model is None else self._one(source.model, source.token)
        return usual

    def _means(self, rows: dict[str, Array], has: dict[str, Array], chosen: Array) -> Array:
        """Return the mean rows of the ``chosen`` tokens, rounded after each step as mergekit does."""
        totals: Array | None = None
        counts = np.zeros(int(chosen.sum()), np.int64)
        for model, old in self._old.items():
            there = has[model][chosen]
            counts += there
            values = self._wide(old[np.where(there, rows[model][chosen], 0)]) * there[:, None]
            totals = values if totals is None else self._wide(self._round(totals + values))
        assert totals is not None
        return self._round(totals / counts[:, None].astype(totals.dtype))

    def _wide(self, words: Array) -> Array:
        return widen(words.reshape(-1), self._dtype).reshape(words.shape)

    def _round(self, values: Array) -> Array:
        return narrow(values.reshape(-1), self._dtype).reshape(values.shape)

    def _one(self, model: str, row: str | int | None) -> Array:
        old = self._old.get(model)
        if old is None or not isinstance(row, int) or row >= len(old):
            raise UsageError(
                f"{self._name}: the row that a token gets is not there", hint="name another source"
            )
        found: Array = old[row]
        return found


# -- the result ------------------------------------------------------------------------------


def conflict(one: ResultTensor, inputs: Sequence[TokenMatrix], base: TokenMatrix | None) -> Conflict:
    """Return the conflict of aligned ``inputs``."""
    below, (first, *others) = base.line if base is not None else None, [each.line for each in inputs]
    if others:
        return Conflict(one.name, below, first, others[0], tuple(others[1:]), True)
    return Conflict(one.name, below, first, below, (), True, (1,))


def compute(
    objects: Objects,
    task: Task,
    inputs: Sequence[TokenMatrix],
    base: TokenMatrix | None,
    parents: Sequence[Line],
) -> Planned | Streamed:
    """Merge aligned ``inputs``; the result is stored relative to ``parents``."""
    dtype = task.dtype or inputs[0].line.dtype
    like = replace(inputs[0].line, dtype=dtype, digest="")
    stored = [opened(objects, line) for line in parents if (line.dtype, line.shape) == (dtype, like.shape)]
    return storing.plan(objects, like, lambda: _pieces(task, inputs, base, dtype), stored)


def _pieces(
    task: Task, inputs: Sequence[TokenMatrix], base: TokenMatrix | None, dtype: str
) -> Iterator[Array]:
    own = inputs[0].line.dtype
    wide = own if dtype == own else "f64" if "f64" in (own, dtype) else "f32"
    chosen = [inputs[number] for number in task.conflict.changed_numbers]
    words = [_in_dtype(one.words, own, wide) for one in chosen]
    below = _in_dtype(base.words, own, wide) if base is not None and task.base is not None else None
    digests = [one.line.digest for one in chosen]
    whole = replace(computing.job_of(task, _Inputs(words, below)), dtype=wide, shape=inputs[0].line.shape)
    job = one_tensor.narrowed(task.method, whole, digests)
    picked = task.method.picks(job)
    if (task.agreeing and one_tensor.agree(task.method, digests)) or picked is not None:
        found = iter([words[task.conflict.changed_numbers.index(job.models[picked or 0])]])
    else:
        found = one_tensor.result(task.method, job, allow_nan=task.allow_nan)
    for piece in found:
        yield piece if wide == dtype else narrow(widen(piece, wide), dtype)


def _in_dtype(words: Array, own: str, wide: str) -> Array:
    return words if own == wide else narrow(widen(words, own), wide)
