"""Kernels are compiled when they are called, once, whichever thread is first."""

import subprocess
import sys
import threading

from theta_native import _Kernel, kernel

ALL = """
import importlib, pkgutil, sys
import theta_native
for module in pkgutil.iter_modules(theta_native.__path__):
    importlib.import_module(f"theta_native.{module.name}")
print(sorted({"numba", "llvmlite"} & set(sys.modules)))
"""


@kernel
def _twice(x: int) -> int:
    return 2 * x


@kernel
def _four_times(x: int) -> int:
    return _twice(_twice(x))


def test_importing_kernels_imports_no_numba() -> None:
    done = subprocess.run([sys.executable, "-c", ALL], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_kernels_that_call_kernels_are_compiled_by_the_first_of_many_threads() -> None:
    first = _four_times
    assert isinstance(first, _Kernel)
    found: list[int] = []
    threads = [threading.Thread(target=lambda k=k: found.append(first(k))) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [4 * k for k in range(8)]
    assert not isinstance(_twice, _Kernel)
    assert first.compiled() is first.compiled()
