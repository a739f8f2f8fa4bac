"""One module writes to disk, one starts programs, one package prints; some things nobody does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.house import chokepoints
from tests.house.source import PRODUCT, Source, snippet, sources, within

HOOKS = ("theta.hf", "theta.jax", "theta.keras", "theta.lightning", "theta.torch")
"""The packages that are imported by programs which train with a framework, and by nothing of theta."""


@dataclass(frozen=True)
class Rule:
    """A check and where it does not apply: in ``packages``, and for one finding in ``exceptions``."""

    check: Callable[[Source], list[str]]
    packages: tuple[str, ...] = ()
    exceptions: tuple[tuple[str, str], ...] = ()

    def findings(self, source: Source) -> list[str]:
        """Return the findings of the rule in ``source``, without the exceptions."""
        if within(source.module, *self.packages):
            return []
        excused = [text for module, text in self.exceptions if module == source.module]
        return [finding for finding in self.check(source) if not finding.endswith(tuple(excused))]


RULES = {
    "disk": Rule(
        chokepoints.disk,
        packages=("theta._fs",),
        # the directories of compiled kernels: these stand below theta and cannot use theta._fs
        exceptions=(
            ("theta_native._saved", ".mkdir writes to disk"),
            ("theta_native._saved", "imports tempfile"),
            ("theta_native._saved", "os.replace writes to disk"),
            ("theta_native._saved", ".write_bytes writes to disk"),
            ("theta_native._claims", "os.open may write"),
        ),
    ),
    "programs": Rule(
        chokepoints.programs,
        packages=("theta.git.run",),
        # this very program, in another mode of Python
        exceptions=(
            ("theta.cli.start", "os.execv starts a program"),
            ("theta_native.warming", "imports subprocess"),
            # workers, which are functions of this program
            ("theta.engine.executors", "concurrent.futures.ProcessPoolExecutor starts a program"),
            ("theta.engine.executors", "imports multiprocessing"),
        ),
    ),
    "printing": Rule(chokepoints.printing, packages=("theta.cli",)),
    "terminal": Rule(
        chokepoints.terminal,
        # what makes text safe, draws it and writes it
        packages=("theta.cli.console", "theta.cli.screen"),
        exceptions=(
            ("theta.cli.app", "sys.stdout goes around console"),  # sets the streams up
            ("theta.cli.app", "sys.stderr goes around console"),
            ("theta.cli.start", "sys.stdout goes around console"),
            ("theta.cli.terminal", "sys.stdout goes around console"),  # asks whether it is a terminal
            ("theta.cli.paging", "sys.stdout goes around console"),  # what the pager reads
            ("theta.cli.plumbing", "sys.stdout goes around console"),  # a pipe to git
            ("theta.api.runs.warned", "warnings.warn goes around console"),  # there is no console
        ),
    ),
    "environment": Rule(
        chokepoints.environment,
        packages=("theta.cli",),
        exceptions=(
            # where compiled kernels are kept
            ("theta_native._saved", "os.environ reads the environment"),
            # how many processes may compile
            ("theta_native.warming", "os.environ reads the environment"),
            # git inherits the user's environment, with theta's additions
            ("theta.git.run", "os.environ reads the environment"),
        ),
    ),
    "directory": Rule(chokepoints.directory, packages=("theta.cli",)),
    "unsafe": Rule(chokepoints.unsafe),
    "frameworks": Rule(chokepoints.frameworks, packages=HOOKS),
    "numba": Rule(chokepoints.numba),
    "scratch": Rule(chokepoints.scratch),
    "objects": Rule(chokepoints.objects, packages=("theta.git",)),
    "lines": Rule(
        chokepoints.lines,
        packages=("theta.cli",),
        exceptions=tuple(
            (module, "splitlines() takes names apart")
            for module in (
                # what a program says, where carriage returns end lines of progress
                *("theta.git.partial", "theta.git.repository", "theta.git.run", "theta.git.options"),
                *("theta.porcelain.commands.merge_routes", "theta.porcelain.drive.running"),
                "theta.porcelain.search.scoring",
                "theta_native._signatures",  # a file of ours
                "theta.porcelain.migration.dvc_origin",  # bytes
                "theta.store.format.manifest",  # markers of conflicts, behind any end of a line
            )
        ),
    ),
    "libgit2": Rule(chokepoints.libgit2, packages=("theta.git", "theta.store.odb")),
    "state_files": Rule(chokepoints.state_files, packages=("theta.git.state_files",)),
}


@pytest.mark.parametrize("rule", RULES)
def test_the_rule_holds(rule: str) -> None:
    assert [finding for source in sources(*PRODUCT) for finding in RULES[rule].findings(source)] == []


@pytest.mark.parametrize("rule", RULES)
def test_no_exception_is_stale(rule: str) -> None:
    check, exceptions = RULES[rule].check, RULES[rule].exceptions
    excused = {module for module, _ in exceptions}
    found = {source.module: check(source) for source in sources(*PRODUCT) if source.module in excused}
    for module, text in exceptions:
        assert any(finding.endswith(text) for finding in found[module]), f"{module} does not need: {text}"


BAD = {
    "disk": """
        open('f', 'w')
        open('f', mode='a')
        open('f', 'r+b')
        open('f', mode)
        import io; io.open('f', 'x')
        f = open
        import os; os.open('f', os.O_WRONLY | os.O_CREAT)
        import os; os.open('f', os.O_RDWR)
        import os; os.open('f', flags)
        import os; os.replace('a', 'b')
        from os import replace as swap; swap('a', 'b')
        import os; f = os.unlink
        import os as o; o.makedirs('d')
        import os; os.rename('a', 'b')
        import os; os.remove('a')
        import os; os.mkdir('a')
        import os; os.truncate('a', 0)
        import os; os.link('a', 'b')
        import os; os.write(1, b'x')
        import shutil; shutil.rmtree('d')
        from shutil import copyfile; copyfile('a', 'b')
        import tempfile
        from tempfile import mkstemp
        import sqlite3
        path.write_text('x')
        path.write_bytes(b'x')
        path.touch()
        path.unlink(missing_ok=True)
        path.mkdir()
        path.rename(other)
        path.replace(other)
        path.open('wb')
        path.open(mode='r+')
        (root / 'f').symlink_to(target)
        from pathlib import Path; Path('f').write_text('x')
        from pathlib import Path; f = Path.unlink
        import mmap; mmap.mmap(fd, 0)
        import numpy as np; np.memmap('f')
        import numpy as np; np.memmap('f', np.uint8, 'r+')
        import numpy as np; np.save('f', a)
        from theta._numpy import np; np.save('f', a)
        array.tofile('f')
    """,
    "programs": """
        import subprocess
        from subprocess import run
        import subprocess as s
        import os; os.system('git')
        from os import popen
        from os import popen as p; p('git')
        import os; os.execvp('git', ['git'])
        import os; os.spawnl(0, 'git')
        import os; os.posix_spawn('git', [], {})
        import os; os.fork()
        import asyncio.subprocess
        from asyncio import subprocess
        import asyncio; asyncio.create_subprocess_exec('git')
        import multiprocessing
        import importlib; importlib.import_module('subprocess')
    """,
    "printing": """
        print('x')
        say = print
        input('?')
        import sys; sys.stdout.write('x')
        import sys; sys.stderr.flush()
        from sys import stderr; stderr.write('x')
        import sys; sys.__stdout__.write('x')
        import sys; sys.stdin.read()
        import rich
        from rich.table import Table
        import typer
        import getpass
        import logging; logging.basicConfig()
    """,
    "terminal": """
        print('x')
        input('?')
        import sys; sys.stdout.write('x')
        import sys; say = sys.stderr
        from sys import stdout as s; s.write('x')
        import rich; rich.print('x')
        from rich.console import Console; Console()
        from rich.markup import escape
        from rich.prompt import Prompt; Prompt.ask('?')
        import typer; typer.echo('x')
        import click; click.secho('x')
        import traceback; traceback.print_exc()
        import warnings; warnings.warn('x')
    """,
    "environment": """
        import os; os.environ['HOME']
        import os; os.getenv('HOME')
        from os import environ; environ.get('HOME')
        from os import getenv as g; g('HOME')
        import os; os.putenv('A', 'b')
    """,
    "directory": """
        import os; os.getcwd()
        from os import getcwd as here; here()
        import os; os.chdir('d')
        from pathlib import Path; Path.cwd()
        from pathlib import Path; default = Path.cwd
        import pathlib; pathlib.Path.cwd()
    """,
    "unsafe": """
        import pickle
        from pickle import loads
        import _pickle
        import marshal
        eval('1')
        exec('1')
        run = eval
        __import__('os')
        import numpy as np; np.load('f', allow_pickle=True)
        import numpy as np; np.load('f', allow_pickle=flag)
        import yaml; yaml.load(text)
        import yaml; yaml.unsafe_load(text)
        from yaml import full_load; full_load(text)
    """,
    "frameworks": """
        import torch
        def f(): from torch import load
        import importlib; importlib.import_module('torch')
        import lightning.pytorch
    """,
    "numba": """
        import numba
        from numba import njit
        def f(): import numba
        import theta_native
        from theta_native.byte_planes import split
        class C: import theta_native
    """,
    "scratch": """
        place = session.scratch() / "x"
        with _fs.temporary_directory("x-", session.scratch()) as folder: pass
    """,
    "objects": """
        session.repo.raw[oid]
        repo.raw.get(oid)
        repo.raw.revparse_single('HEAD')
    """,
    "lines": """
        text.splitlines()
        rows = place.read_text().splitlines(keepends=True)
        map(str.splitlines, texts)
    """,
    "libgit2": """
        import pygit2
        from pygit2.enums import FileMode
        def f(): import pygit2
        from typing import TYPE_CHECKING; import pygit2 as git
        session.repo.raw.config
        raw = repo.raw
    """,
    "state_files": """
        gitdir / 'MERGE_HEAD'
        gitdir / 'rebase-merge' / 'done'
        names = ('sequencer/todo', 'x')
        script = b'exec mv theta/MERGE_HEAD x'
        message = f'MERGE_MSG of {name}'
    """,
}

GOOD = {
    "disk": """
        open('f')
        open('f', 'rb')
        path.open()
        path.open('rb')
        import os; os.open('f', os.O_RDONLY | os.O_CLOEXEC)
        import shutil; shutil.which('git')
        'text'.replace('a', 'b')
        from dataclasses import replace; replace(thing, size=1)
        from theta import _fs; _fs.rename('a', 'b')
        from theta._fs import remove; remove('a')
        items.remove(1)
        import mmap; mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
        import mmap; mmap.mmap(-1, 9)
        import numpy as np; np.memmap('f', np.uint8, 'r')
        import os; os.stat('f')
        import theta; theta.open('model.safetensors', 'main')
    """,
    "programs": """
        from theta.git.run import Git
        import os; os.getpid()
        import os; os.kill(pid, 0)
        from concurrent.futures import ThreadPoolExecutor
    """,
    "printing": """
        import sys; sys.platform
        import logging; logging.getLogger('theta').info('x')
        import pprint; pprint.pformat(x)
    """,
    "terminal": """
        from theta.cli import console; console.out('x')
        from rich.table import Table; Table()
        import sys; sys.stdin.isatty()
        import typer; typer.Option(False)
        import traceback; traceback.format_exc()
    """,
    "environment": """
        import os; os.getcwd()
        environ = {}
    """,
    "directory": """
        git.cwd
        Git(session.cwd)
        from pathlib import Path; Path.home()
    """,
    "unsafe": """
        import json; json.loads(text)
        import re; re.compile('x')
        import numpy as np; np.load('f', allow_pickle=False)
        import yaml; yaml.safe_load(text)
        import pickletools
    """,
    "numba": """
        def f(): import theta_native
        def f(): from theta_native.byte_planes import split
        import numpy
    """,
    "scratch": """
        from theta import _fs
        place = session.scratch() / _fs.own_temporary("x")
        with _fs.temporary_directory(_fs.own_temporary("x"), session.scratch()) as folder: pass
        edit(None, session.scratch())
    """,
    "objects": """
        repo.find(oid)
        repo.raw.config['core.bare']
        raw[0:4]
    """,
    "lines": """
        split_lines(text)
        text.split('\\n')
    """,
    "libgit2": """
        repo.config.get('core.bare')
        raw = data[:4]
        from theta.git.object_values import Tree
    """,
    "state_files": """
        'MERGE_HEAD tells of it.'
        gitdir / 'HEAD'
        gitdir / state_files.MERGE_HEAD
        'rebase'
    """,
}


def _lines(table: dict[str, str]) -> list[tuple[str, str]]:
    return [(rule, line.strip()) for rule, text in table.items() for line in text.strip().splitlines()]


@pytest.mark.parametrize(("rule", "line"), _lines(BAD))
def test_a_breach_is_seen(rule: str, line: str) -> None:
    assert RULES[rule].findings(snippet(line))


@pytest.mark.parametrize(("rule", "line"), _lines(GOOD))
def test_a_lookalike_is_free(rule: str, line: str) -> None:
    assert RULES[rule].findings(snippet(line)) == []


def test_an_exception_excuses_one_thing_in_one_module() -> None:
    make, remove = (snippet(text, "theta_native._saved") for text in ("d.mkdir()", "d.unlink()"))
    assert RULES["disk"].findings(make) == []
    assert len(RULES["disk"].findings(remove)) == 1
    assert len(RULES["disk"].findings(snippet("d.mkdir()", "theta_native.byte_planes"))) == 1
    assert len(RULES["printing"].findings(snippet("print()", "theta.__main__"))) == 1
    assert RULES["printing"].findings(snippet("print()", "theta.cli.add")) == []
    assert RULES["numba"].findings(snippet("import numba", "theta_native.byte_planes")) == []
