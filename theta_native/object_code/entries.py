"""Object code of compiled kernels for :mod:`.linked`, which calls them without numba.

A kernel that numba compiled takes each array as seven or more values.  The entry is a function that reads
them from the array itself, where numpy's C API has them, and calls the kernel.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any, Final

from llvmlite import binding  # type: ignore[import-untyped]
from numba.core import types

from theta_native.object_code import linked, linker

_FROM_C: Final = {"memset", "memcpy", "memmove", "log2"}
_UNUSED: Final = {"NRT_MemInfo_call_dtor"}
"""Functions that are only called for arrays that numba allocated."""
_HEAD: Final = object.__basicsize__
_DATA, _SHAPE, _STRIDES = _HEAD, _HEAD + 16, _HEAD + 24
"""The offsets in an array of the addresses of its data, shape and strides."""
_SCALARS: Final = {
    **{f"{sign}int{bits}": f"i{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "boolean": "i8",
    "bool": "i8",
    "float32": "float",
    "float64": "double",
}


def content(libdata: Any, fndesc: Any, signature: Any, codegen: Any) -> bytes | None:
    """Return the content of the file of a kernel; None for one that must be called by numba."""
    result = repr(signature.return_type)
    if (
        ctypes.sizeof(ctypes.c_void_p) != 8
        or result not in linked.RESULTS
        or codegen.magic_tuple() != linker.processor()
    ):
        return None
    _, _, (code, bitcode, *_) = libdata
    module = binding.parse_bitcode(bitcode)
    kernel = module.get_function(fndesc.llvm_func_name)
    missing = set(_declared(module)) - _FROM_C
    text = _Entry(module, kernel, signature.args).text(missing)
    if text is None or not _stands_alone(module, kernel, codegen):
        return None
    entry = binding.parse_assembly(text)
    entry.verify()
    return linked.pack(result, codegen._tm.emit_object(entry), code)


def _declared(module: Any) -> Iterator[str]:
    """Yield the functions that a module calls and lacks, without those of Python's C API."""
    for function in module.functions:
        if function.is_declaration and not function.name.startswith(("llvm.", "Py", "_Py")):
            yield function.name


def _stands_alone(module: Any, kernel: Any, codegen: Any) -> bool:
    """Return whether the kernel needs nothing of numba; removes all else from ``module``."""
    kernel.linkage = "external"
    options = binding.PipelineTuningOptions(speed_level=0)
    passes = binding.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(module, binding.create_pass_builder(codegen._tm, options))
    used = {function.name for function in module.functions if function.is_declaration}
    return all(name.startswith("llvm.") or name in _FROM_C | _UNUSED for name in used)


class _Entry:
    """The text of an entry, in LLVM's assembly."""

    def __init__(self, module: Any, kernel: Any, args: Any) -> None:
        self._machine = f'target triple = "{module.triple}"\ntarget datalayout = "{module.data_layout}"'
        self._kernel = kernel
        self._takes = ["ptr %out"]
        self._lines = ["%raised = alloca ptr"]
        self._gives = ["ptr %out", "ptr %raised"]
        self._is_known = all(map(self._add, args))

    def text(self, missing: set[str]) -> str | None:
        """Return the text, or None for types that entries do not take.

        It defines functions named ``missing``, which are not called, so that LLVM can link the kernel.
        """
        expected = [str(argument.type) for argument in self._kernel.arguments]
        if not self._is_known or [given.split()[0] for given in self._gives] != expected:
            return None
        name = f'i32 @"{self._kernel.name}"'
        return "\n".join(
            [
                self._machine,
                "declare void @llvm.trap()",
                f"declare {name}({', '.join(expected)})",
                *(f'define void @"{one}"() {{\ncall void @llvm.trap()\nunreachable\n}}' for one in missing),
                f"define i32 @{linked.ENTRY}({', '.join(self._takes)}) {{",
                *self._lines,
                f"%status = call {name}({', '.join(self._gives)})",
                "ret i32 %status\n}\n",
            ]
        )

    def _add(self, one: Any) -> bool:
        """Take an argument of numba's type ``one``; return False for types that are not known."""
        if isinstance(one, types.Array):
            self._add_array(one)
        elif isinstance(one, (types.UniTuple, types.Tuple)):
            return all(map(self._add, one.types))
        elif (kind := _SCALARS.get(repr(one))) is not None:
            self._takes.append(f"{kind} %a{len(self._takes)}")
            self._gives.append(self._takes[-1])
        else:
            return False
        return True

    def _add_array(self, one: Any) -> None:
        """Take an array; give no owner and parent, its size, that of an item, data, shape and strides."""
        name = f"%a{len(self._takes)}"
        self._takes.append(f"ptr {name}")
        shape, strides = (
            [self._load("i64", self._load("ptr", name, at), 8 * axis) for axis in range(one.ndim)]
            for at in (_SHAPE, _STRIDES)
        )
        size = "1"
        for length in shape:
            size = self._value(f"mul i64 {size}, {length}")
        data = self._load("ptr", name, _DATA)
        self._gives += ["ptr null", "ptr null", f"i64 {size}", f"i64 {one.dtype.bitwidth // 8}"]
        self._gives += [f"ptr {data}", *(f"i64 {number}" for number in (*shape, *strides))]

    def _load(self, kind: str, base: str, offset: int) -> str:
        place = self._value(f"getelementptr i8, ptr {base}, i64 {offset}")
        return self._value(f"load {kind}, ptr {place}")

    def _value(self, text: str) -> str:
        name = f"%v{len(self._lines)}"
        self._lines.append(f"{name} = {text}")
        return name
