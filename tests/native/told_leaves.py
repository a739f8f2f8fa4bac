"""The leaves that callers of a kernel tell of, held against its arguments."""

from collections.abc import Callable, Hashable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from theta_native.object_code import linked


def checked(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> dict[Hashable, Hashable]:
    """Check each call that ``module`` makes from now on; return the types of arguments by what decides them.

    Equal keys have leaves of equal types, and the leaves are those of the arguments.
    """
    known: dict[Hashable, Hashable] = {}

    def check(
        function: Callable[..., Any], key: Hashable, leaves: list[Any], args: Callable[[], tuple[Any, ...]]
    ) -> Any:
        kinds, wanted = linked.taken(args())
        assert known.setdefault((id(function), key), kinds) == kinds
        assert len(leaves) == len(wanted)
        for one, other in zip(leaves, wanted, strict=True):
            assert one is other if isinstance(one, np.ndarray) and one.flags.owndata else np.all(one == other)
        assert {type(one) for one in leaves} <= {np.ndarray, int, bool}
        return function(*args())

    monkeypatch.setattr(module, "given", check)
    return known
