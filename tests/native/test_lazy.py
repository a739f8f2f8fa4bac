"""Kernels are compiled when they are called, once, whichever thread is first."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numba
import pytest

from theta_native import _Kernel, _saved, kernel

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


@pytest.fixture
def nothing_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache: a kernel that an earlier session saved is linked, and numba not called."""
    monkeypatch.setattr(_saved, "directories", lambda: (tmp_path,))


def test_importing_kernels_imports_no_numba() -> None:
    done = subprocess.run([sys.executable, "-c", ALL], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_kernels_that_call_kernels_are_compiled_by_the_first_of_many_threads(
    nothing_saved: None,
) -> None:
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


@kernel
def _thrice(x: int) -> int:
    return 3 * x


@kernel
def _nine_times(x: int) -> int:
    return _thrice(_thrice(x))


def test_c1_no_thread_sees_a_kernel_before_those_that_it_calls(
    nothing_saved: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first commit in a fresh home failed with "Untyped global name", exit 70."""
    real: Any = numba.njit

    def slow(**options: object) -> Callable[[object], object]:
        def compiled(function: object) -> object:
            made: object = real(**options)(function)
            time.sleep(0.05)
            return made

        return compiled

    first = _nine_times

    def after(wait: float) -> int:
        time.sleep(wait)
        return first(1)

    monkeypatch.setattr(numba, "njit", slow)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(after, [0.0, 0.02, 0.06, 0.1])) == [9] * 4


WHILE_ANOTHER_IMPORTS_NUMPY = """
import importlib, pkgutil, sys, threading, time
from importlib.abc import MetaPathFinder
import theta, theta.lazy  # which import no numpy

name, function = sys.argv[1:]
inside, errors = threading.Event(), []

class Slow(MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname == "numpy._core" and not inside.is_set():
            inside.set()
            time.sleep(0.3)
        return None

def load(name, function=""):
    try:
        module = importlib.import_module(name)
        if function:
            getattr(module, function)()
    except Exception as error:
        errors.append(repr(error))

sys.meta_path.insert(0, Slow())
first = threading.Thread(target=load, args=("numpy",))
first.start()
inside.wait()
load(name, function)
first.join()
print(errors)
"""


@pytest.mark.parametrize(
    ("module", "function"),
    [("theta_native", ""), ("theta_native.rans", ""), ("theta._blas", "threads"), ("theta.dtypes", "")],
)
def test_numpy_is_whole_before_a_part_of_it_is_imported(module: str, function: str) -> None:
    """Two threads of ``git add``'s filter began at numpy at once, and the import of one failed."""
    command = [sys.executable, "-c", WHILE_ANOTHER_IMPORTS_NUMPY, module, function]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", done.stdout
