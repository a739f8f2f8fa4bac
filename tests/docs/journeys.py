"""The way of a command through modules, counted from its calls and from the imports of the modules.

The modules of ``theta.cli`` and ``theta.porcelain`` are counted in which a function is called, from the
function of the command on.  A reader of the command goes through these, and takes what lies below by its
name.  A call *returns upwards* if the caller does not import the called module, directly or indirectly: the
caller was given a function, or an object with a method, of a module that stands above it.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Final

from tests.house.layers import reached_from
from tests.house.source import PRODUCT, sources

_COUNTED: Final = ("theta.cli.", "theta.porcelain.")


@dataclass
class Journey:
    """The calls of one command.

    Attributes:
        functions: all functions of theta, in the order in which they are first called.
        modules: the counted modules, in the order in which one of their functions is first called.
        calls: (caller, called module) -> the first function that is called, of counted modules.
    """

    functions: dict[str, None] = field(default_factory=dict)
    modules: list[str] = field(default_factory=list)
    calls: dict[tuple[str, str], str] = field(default_factory=dict)

    @property
    def upwards(self) -> list[str]:
        """The calls that return upwards."""
        known = sources(*PRODUCT)
        below = {caller: reached_from(caller, known) for caller in self.modules}
        return [f"{a} calls {name}" for (a, b), name in self.calls.items() if b not in below[a]]

    def note(self, frame: FrameType, start: str) -> None:
        """Take down the call that ``frame`` is."""
        module = _module(frame)
        name = f"{module}.{frame.f_code.co_qualname}"
        self.functions.setdefault(name)
        if not module.startswith(_COUNTED):
            return
        if not self.modules and name == start:
            self.modules.append(module)
        caller = _caller(frame) if self.modules else ""
        if caller in self.modules and caller != module:
            if module not in self.modules:
                self.modules.append(module)
            self.calls.setdefault((caller, module), name)


def travelled(run: Callable[[], object], start: str) -> Journey:
    """Return the journey of ``run``; modules are counted from the first call of the function ``start`` on."""
    journey = Journey()

    def look(frame: FrameType, event: str, _argument: Any) -> None:
        is_value = frame.f_code.co_name == "<genexpr>"  # a caller that goes through it calls nobody
        if event == "call" and not is_value and _module(frame).startswith("theta") and _is_function(frame):
            journey.note(frame, start)

    threading.setprofile(look)
    sys.setprofile(look)
    try:
        run()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return journey


def _caller(frame: FrameType) -> str:
    """Return the nearest counted module that called ``frame``; "" for what the import of a module calls."""
    found, back = "", frame.f_back
    while back is not None:
        module = _module(back)
        if module.startswith("theta.") and not _is_function(back):
            return ""
        found = found or (module if module.startswith(_COUNTED) else "")
        back = back.f_back
    return found


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__"))


def _is_function(frame: FrameType) -> bool:
    """Return whether the code of the frame is a function, not a module or the body of a class."""
    return bool(frame.f_code.co_flags & inspect.CO_OPTIMIZED)
