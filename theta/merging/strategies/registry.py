"""The strategies by name: built-in ones, and plug-ins of the entry-point group ``theta.strategies``.

A plug-in is loaded when a user names it, never before.  A broken plug-in is an error only then.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Final

from theta.errors import ThetaError, UsageError, in_short
from theta.merging.strategies.method import Method

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP: Final = "theta.strategies"

_HERE: Final = "theta.merging.strategies"
BUILT_IN: Final = {
    "average": "linear:Average",
    "linear": "linear:Linear",
    "task_arithmetic": "task_vectors:TaskArithmetic",
    "ties": "ties:Ties",
    "dare_linear": "dare:DareLinear",
    "dare_ties": "dare:DareTies",
    "breadcrumbs": "breadcrumbs:Breadcrumbs",
    "breadcrumbs_ties": "breadcrumbs:BreadcrumbsTies",
    "della": "della:Della",
    "della_linear": "della:DellaLinear",
    "slerp": "slerp:Slerp",
    "nuslerp": "slerp:NuSlerp",
    "multislerp": "spherical:MultiSlerp",
    "karcher": "spherical:Karcher",
    "model_stock": "model_stock:ModelStock",
    "sce": "sce:Sce",
    "nearswap": "pairs:NearSwap",
    "arcee_fusion": "pairs:ArceeFusion",
    "magmax": "extremes:MagMax",
    "ram": "extremes:Ram",
    "ramplus_tl": "extremes:RamPlus",
    "passthrough": "passthrough:Passthrough",
    "fisher": "statistics:Fisher",
    "regmean": "statistics:RegMean",
    "smear": "statistics:Smear",
    "iso_c": "spectral:IsoC",
    "tsv_m": "spectral:TsvM",
    "emr": "masks:Emr",
    "tall": "masks:Tall",
    "consensus": "masks:Consensus",
    "opcm": "interference:Opcm",
    "wudi": "interference:Wudi",
    "doge_ta": "interference:DogeTa",
    "outer": "outer:Outer",
    "peft": "of_factors:Peft",
}
ALIASES: Final = {
    "avg": "average",
    "take_us": "ours",
    "take_them": "theirs",
    "take_theirs": "theirs",
    "take_original": "base",
}
"""Short names of strategies and sides, and those of git-theta."""


@cache
def plugins() -> Mapping[str, EntryPoint]:
    """Return the installed plug-ins by name, without those with the name of a built-in strategy."""
    from importlib.metadata import entry_points

    taken = {*BUILT_IN, *ALIASES, "ours", "theirs", "base"}
    return {point.name: point for point in entry_points(group=GROUP) if point.name not in taken}


def known(name: str) -> bool:
    """Return whether there is a method of this name; plug-ins are searched only if it is not built in."""
    return name in BUILT_IN or name in plugins()


@cache
def method(name: str) -> Method:
    """Return the method ``name``.

    Raises :class:`UsageError` for an unknown name, :class:`ThetaError` for a broken plug-in.
    """
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        found: Method = getattr(importlib.import_module(f"{_HERE}.{module}"), attribute)()
        return found
    if name not in plugins():
        raise UsageError(f"unknown merge strategy {name!r}", hint=f"one of {', '.join(names())}")
    return _plugin(plugins()[name])


def _plugin(point: EntryPoint) -> Method:
    try:
        found = point.load()()
    except Exception as error:  # any error of a plug-in is reported as such
        raise ThetaError(
            f"the plug-in strategy {point.name!r} ({point.value}) cannot be loaded: {in_short(error)}",
            hint="repair or uninstall the package it comes from",
        ) from error
    if not isinstance(found, Method):
        raise ThetaError(f"the plug-in strategy {point.name!r} ({point.value}) is not a Method")
    return found


def names() -> tuple[str, ...]:
    """Return the names of all strategies, sides first, plug-ins last, without loading any."""
    return ("ours", "theirs", "base", *BUILT_IN, *sorted(plugins()))


def broken_plugins() -> dict[str, str]:
    """Return name -> reason of the plug-ins that cannot be loaded."""
    found = {}
    for name in plugins():
        try:
            method(name)
        except ThetaError as error:
            found[name] = str(error)
    return found
