"""``passthrough``: one input, optionally scaled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from theta.errors import UsageError
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

    def complete(self, values: Mapping[str, Any], count: int) -> Mapping[str, Any]:
        """Raise :class:`UsageError` if there is no such input."""
        if values["input"] > count:
            raise UsageError(f"passthrough: there is no input {values['input']} of {count}")
        return values

    def picks(self, job: Job) -> int | None:
        """Return the selected input if it is not scaled."""
        return int(job["input"]) - 1 if job["scale"] == 1 else None

    def merge(self, job: Job, block: Block, stats: Any) -> NDArray[Any]:
        """Return the scaled input."""
        values: NDArray[Any] = block.inputs[job["input"] - 1] * job.wide.type(job["scale"])
        return values
