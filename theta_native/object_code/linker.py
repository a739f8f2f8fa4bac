"""LLVM, which links object code into this process."""

from __future__ import annotations

import functools
from typing import Any, Final

from llvmlite import binding  # type: ignore[import-untyped]

_trackers: Final[list[Any]] = []
"""The owners of linked code, which keep it in memory."""


@functools.cache
def processor() -> tuple[str, str, str]:
    """Return what object code depends on, as numba's cache has it: system, processor and features."""
    features = binding.get_host_cpu_features().flatten()
    return binding.get_process_triple(), binding.get_host_cpu_name(), features


@functools.cache
def _linker() -> Any:
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    return binding.create_lljit_compiler(binding.Target.from_default_triple().create_target_machine(jit=True))


def link(entry: bytes, code: bytes, name: str) -> int:
    """Link two objects that need each other and this process; return the address of function ``name``.

    Raises ``RuntimeError`` if they need something else.
    """
    builder = binding.JITLibraryBuilder().add_object_img(entry).add_object_img(code).add_current_process()
    tracker = builder.export_symbol(name).link(_linker(), f"kernel {len(_trackers)}")
    _trackers.append(tracker)
    address: int = tracker[name]
    return address
