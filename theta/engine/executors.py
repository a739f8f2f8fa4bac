"""Executors by name: what ``--engine`` and ``theta.engine`` may say.

An engine runs functions that this process pickles, so whatever is behind its address is trusted as this
program is.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from typing import Final

from theta.errors import EngineError, UsageError
from theta.parallel import workers

THREADS: Final = "threads"
KINDS: Final = "threads, processes[:N], dask://HOST:PORT, mpi or MODULE:FACTORY"
_PROCESSES: Final = re.compile(r"processes(?::([1-9][0-9]{0,3}))?")
_FACTORY: Final = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)")
_DASK: Final = "dask://"


class Engine:
    """An executor that is made when it is first needed, and again when its workers are lost.

    Args:
        make: makes it; raises :class:`EngineError` if it cannot.
        is_ours: whether it is to be shut down at the end.
    """

    def __init__(self, make: Callable[[], Executor], *, is_ours: bool = True) -> None:
        self._make, self._is_ours = make, is_ours
        self._executor: Executor | None = None

    @classmethod
    def of(cls, executor: Executor) -> Engine:
        """Return the engine of an executor that the caller made, and will shut down."""
        return cls(lambda: executor, is_ours=False)

    @property
    def executor(self) -> Executor:
        """The executor."""
        if self._executor is None:
            self._executor = self._make()
        return self._executor

    def renew(self) -> None:
        """Make another executor next time: this one is broken."""
        self.close()

    def close(self) -> None:
        """Shut the executor down if it is ours; what waits there is not begun."""
        executor, self._executor = self._executor, None
        if executor is not None and self._is_ours:
            with contextlib.suppress(Exception):  # a broken one has nothing left to do
                executor.shutdown(cancel_futures=True)


def engine_of(spec: str) -> Engine | None:
    """Return the engine called ``spec``; None for the threads of this process.

    Raises:
        theta.errors.UsageError: ``spec`` is none of :data:`KINDS`.
    """
    if spec in ("", THREADS):
        return None
    if (found := _PROCESSES.fullmatch(spec)) is not None:
        count = int(found[1]) if found[1] else workers()
        return Engine(lambda: ProcessPoolExecutor(count, multiprocessing.get_context("spawn")))
    if spec.startswith(_DASK):
        return Engine(lambda: _dask(spec.removeprefix(_DASK)))
    if spec == "mpi":
        return Engine(_mpi)
    if (found := _FACTORY.fullmatch(spec)) is not None:
        module, name = found.groups()
        return Engine(lambda: _made(module, name))
    raise UsageError(f"there is no engine {spec!r}", hint=f"one of {KINDS}")


def _dask(address: str) -> Executor:
    with _explained("dask", "pip install 'theta-vcs[dask]'"):
        distributed = importlib.import_module("distributed")
        client = distributed.Client(f"tcp://{address}" if "://" not in address else address)
        executor: Executor = client.get_executor()
        return executor


def _mpi() -> Executor:
    with _explained(
        "MPI", "pip install mpi4py, and run 'mpiexec -n N python -m mpi4py.futures -m theta ...'"
    ):
        executor: Executor = importlib.import_module("mpi4py.futures").MPIPoolExecutor()
        return executor


def _made(module: str, name: str) -> Executor:
    with _explained(f"{module}:{name}", "it is to be a function that returns a concurrent.futures.Executor"):
        executor = getattr(importlib.import_module(module), name)()
    if not isinstance(executor, Executor):
        raise EngineError(f"{module}:{name} made no concurrent.futures.Executor")
    return executor


@contextlib.contextmanager
def _explained(what: str, hint: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise EngineError(f"the engine {what} cannot be used: {error}", hint=hint) from error
