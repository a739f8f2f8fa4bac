"""Several updates of one model, each with a weight, as one: factors side by side are rounded once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from theta._numpy import np
from theta.errors import UsageError
from theta.porcelain.stage import updates
from theta.porcelain.stage.fitting import Step
from theta.porcelain.stage.updates import LowRank, Slices, Sparse, Update, Whole

_NEARLY: Final = 1e-9


def together(plans: Sequence[Sequence[Step]], weights: Sequence[float]) -> list[Step]:
    """Return the steps of all ``plans``, with ``weights``, as one plan: ``W + sum(w_i B_i A_i)``.

    PEFT's ``add_weighted_adapter`` calls it ``cat``.  Raises :class:`UsageError` for updates that have no
    weighted sum: scales, and whole tensors that differ.
    """
    if list(weights) == [1.0]:
        return list(plans[0])
    found: dict[str, list[tuple[Step, float]]] = {}
    for steps, weight in zip(plans, weights, strict=True):
        for step in steps:
            found.setdefault(step.line.name, []).append((step, weight))
    problems: list[str] = []
    made = [_joined(pairs, problems) for pairs in found.values()]
    if problems:
        first, others = updates.told(problems)
        raise UsageError(f"the updates cannot be added up: {first}", details=others)
    return sorted(made, key=lambda step: step.line.name)


def _joined(pairs: Sequence[tuple[Step, float]], problems: list[str]) -> Step:
    line = pairs[0][0].line
    items = [(item, weight) for step, weight in pairs for item in step.updates]
    whole = [item for item, _ in items if isinstance(item, Whole)]
    products = [(item, weight) for item, weight in items if isinstance(item, LowRank)]
    slices = [(item, weight) for item, weight in items if isinstance(item, Slices)]
    sparse = [(item, weight) for item, weight in items if isinstance(item, Sparse)]
    if len(whole) + len(products) + len(sparse) + len(slices) < len(items):
        problems.append(f"{line.name} is scaled or has single rows replaced, which has no weighted sum")
    if any(item.magnitude is not None for item, _ in products):
        problems.append(f"{line.name} gets magnitudes (DoRA), which have no weighted sum")
    if whole and not all(updates.same(whole[0], other) for other in whole[1:]):
        problems.append(f"{line.name} is replaced by different values")
    if whole and len(whole) < len(pairs):
        problems.append(f"{line.name} is replaced by some of them only")
    elif whole and abs(sum(weight for _, weight in pairs) - 1) > _NEARLY:
        problems.append(
            f"{line.name} is replaced, which counts wholly: its weights add up to another number than 1"
        )
    added: list[Update] = [_side_by_side(products)] if products else []
    added += [_slice_by_slice(slices)] if slices else []
    added += [replace(item, data=item.data * weight) for item, weight in sparse]
    return Step(line, (*whole[:1], *added))


def _side_by_side(products: Sequence[tuple[LowRank, float]]) -> LowRank:
    """Return the sum of products, which is the product of longer factors."""
    u, v = (np.ascontiguousarray(np.hstack([getattr(item, part) for item, _ in products])) for part in "uv")
    return replace(products[0][0], u=u, v=v, scales=np.hstack([item.scales * by for item, by in products]))


def _slice_by_slice(found: Sequence[tuple[Slices, float]]) -> Slices:
    weights = [weight for _, weight in found]
    experts = zip(*(item.items for item, _ in found), strict=True)
    return Slices(tuple(_side_by_side(list(zip(those, weights, strict=True))) for those in experts))
