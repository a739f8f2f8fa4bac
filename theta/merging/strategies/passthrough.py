"""``passthrough``: one input, optionally scaled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from theta.merging.strategies.method import Block, Job, Method
from theta.merging.strategies.parameters import Parameter

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Passthrough(Method):
    """``scale x`` for the selected input x."""

    name = "passthrough"
    summary = "one side as it is, or scaled"
    parameters = (
        Parameter("scale", "number", 1.0, "what the values are multiplied by"),
        Parameter("input", "whole", 1, "which side: 1 is ours, 2 theirs", 1, 1000),
    )
    equal_agree = False
    one_side = True

    def only_side(self, values: Mapping[str, Any]) -> int | None:
        """Return the number of the selected input."""
        return int(values["input"]) - 1

    def takes_side(self, values: Mapping[str, Any]) -> bool:
        """Return whether the selected input is not scaled."""
        return bool(values["scale"] == 1)

    def picks(self, job: Job) -> int | None:
        """Return the selected input if it is not scaled."""
        return 0 if job["scale"] == 1 else None

    def merge(self, job: Job, block: Block, stats: Any) -> NDArray[Any]:
        """Return the scaled input."""
        values: NDArray[Any] = block.inputs[0] * job.wide.type(job["scale"])
        return values
