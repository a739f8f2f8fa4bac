"""Kernels that other processes compile: what is declared, who compiles it, and how long one waits."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from tests.support import Repo
from tests.support.models import make_model
from theta import _kernels
from theta.cli import app, start
from theta.errors import ExitCode
from theta_native import _claims, _Kernel, _saved, _signatures, warming

RECORD = """
from theta_native import _saved, _signatures

real = _saved.Saved.load_overload

def load(self, signature, context):
    print(f"asked {self._name} {_signatures.spell(signature)}")
    return real(self, signature, context)

_saved.Saved.load_overload = load
_saved.load = lambda function, args: None
"""

JOURNEY = """
import sys
from theta.cli.app import run
assert run(["track", "-q", "*.safetensors"]) == 0
for version in ("base", "full", "lora"):
    with open(f"../{version}.safetensors", "rb") as source, open("m.safetensors", "wb") as target:
        target.write(source.read())
    assert run(["add", "m.safetensors"]) == 0
    assert run(["commit", "-q", "-m", version]) == 0
    assert run(["branch", version]) == 0
    assert run(["reset", "-q", "--hard", "base"]) == 0
assert run(["switch", "-q", "full"]) == 0
print("numba" in sys.modules)
"""

PARENT = "os.getppid()"
WORK = """
import os, sys
from theta_native import _signatures, warming
there = "rans._refill uint32, uint16, uint64"
_signatures.declared = lambda: [[there], {more}]
{call}
"""

HOLD = """
import sys
from pathlib import Path
from theta_native import _claims
print(_claims.take(Path(sys.argv[1]), sys.argv[2]), flush=True)
sys.stdin.read()
"""


def run(program: str, *args: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> list[str]:
    command = [sys.executable, "-c", program, *args]
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_what_a_fine_tune_an_adapter_and_a_checkout_call_is_declared_and_linked(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that is missing is compiled by the command that needs it, while the other processors wait."""
    monkeypatch.delenv("NUMBA_BOUNDSCHECK", raising=False)  # with it kernels are numba's to call
    random = np.random.default_rng(0)
    base = random.normal(0, 0.02, (512, 512)).astype(np.float32)
    low = random.normal(0, 1, (512, 16)) @ random.normal(0, 4.5e-4, (16, 512))
    for name, change in (("base", 0), ("full", random.normal(0, 4e-4, base.shape)), ("lora", low)):
        value = base + np.asarray(change, np.float32)
        bf16 = (value.view(np.uint32) >> 16).astype(np.uint16)
        make_bf16(repo.path.parent / f"{name}.safetensors", bf16)
    lines = run(RECORD + JOURNEY, cwd=repo.path)
    asked = {line.removeprefix("asked ") for line in lines if line.startswith("asked ")}
    declared = {line for group in _signatures.declared() for line in group}
    both_ways = {
        "differences._difference",
        "differences._restore",
        "coded.writing._write",
        "coded.sections._decode",
    }
    assert both_ways <= {line.partition(" ")[0] for line in asked}
    assert sorted(asked - declared) == [], "run: python bench/kernels.py"
    assert lines[-1] == "True"
    repo.git("init", "-q", "../again")
    assert run(JOURNEY, cwd=repo.path.parent / "again")[-1] == "False"


def make_bf16(path: Path, words: "np.ndarray[tuple[int, ...], np.dtype[np.uint16]]") -> None:
    import ml_dtypes

    make_model(path, {"q_proj.weight": words.view(ml_dtypes.bfloat16)})


def test_every_declared_signature_is_one_of_a_kernel() -> None:
    for line in (line for group in _signatures.declared() for line in group):
        name, _, text = line.partition(" ")
        module, _, function = name.rpartition(".")
        kernel = getattr(import_module(f"theta_native.{module}"), function)
        python = kernel._function if isinstance(kernel, _Kernel) else kernel.py_func
        signature = _signatures.parse(text)
        assert len(signature) == python.__code__.co_argcount, line
        assert _signatures.spell(signature) == text


@pytest.mark.parametrize("mode", ["all", "beside", "background"])
def test_a_worker_compiles_what_is_declared_and_survives_what_is_not_there(tmp_path: Path, mode: str) -> None:
    more = """["rans._gone int64", "nowhere.f int64", "rans._refill nonsense", "rans._refill boolean"]"""
    program = WORK.format(more=more, call=f"print(warming.work({mode!r}, {PARENT}, 'rans._gone int64'))")
    env = {"NUMBA_CACHE_DIR": str(tmp_path)}
    assert run(program, env=env) == [str(int(mode == warming.ALL))]
    assert [path.name.partition("-")[0] for path in tmp_path.rglob("*.nbc")] == ["theta_native.rans._refill"]
    assert run(WORK.format(more="[]", call=f"print(warming.work({mode!r}, {PARENT}))"), env=env) == ["0"]
    assert run(WORK.format(more="[]", call="print(warming.compiled())"), env=env) == ["1"]


def test_a_claim_ends_with_its_process(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path), "a kernel"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        assert not _claims.take(tmp_path, "a kernel")
        assert _claims.take(tmp_path, "another kernel")
        holder.kill()
    assert _claims.take(tmp_path, "a kernel")
    _claims.give_back(tmp_path, "a kernel")
    assert run(HOLD, str(tmp_path), "a kernel") == ["True"]


def test_nobody_waits_for_ever_for_a_process_that_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_claims, "PATIENCE", 0.1)
    command = [sys.executable, "-c", HOLD, str(tmp_path), "a kernel"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        began = time.monotonic()
        _claims.wait(tmp_path, "a kernel")
        assert 0.1 <= time.monotonic() - began < 5
        holder.kill()


def test_a_place_without_claims_is_no_error(tmp_path: Path) -> None:
    assert _claims.take(tmp_path / "missing", "a kernel")
    _claims.give_back(tmp_path / "missing", "a kernel")


def test_a_killed_worker_leaves_its_kernel_to_the_command(tmp_path: Path) -> None:
    """The command compiles what the worker had claimed, and saves it."""
    kernel = "rans._refill uint32, uint16, uint64"
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    place = run("from theta_native import _saved; print(_saved.directories()[-1])", env=env)[0]
    command = [sys.executable, "-c", HOLD, place, kernel]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        program = WORK.format(more="[]", call=f"print(warming._is_saved({kernel!r}))")
        with subprocess.Popen([sys.executable, "-c", program], env=env, stdout=subprocess.PIPE) as waiting:
            time.sleep(0.2)
            holder.kill()
            assert waiting.communicate()[0] == b"True\n"
    assert len(list(tmp_path.rglob("*.nbc"))) == 1


@pytest.mark.parametrize("mode", [warming.BESIDE, warming.ALL])
def test_a_worker_begins_no_kernel_after_its_command_has_ended(mode: str) -> None:
    poll = "warming._compile = lambda _, wanted: [time.sleep(0.01) for _ in iter(wanted, False)]"
    work = f"print('at work', flush=True)\nwarming.work({mode!r}, sys.argv[1])"
    worker = WORK.format(more="[]", call=f"import time\n{poll}\n{work}")
    started = f"subprocess.Popen([sys.executable, '-c', {worker!r}, str(os.getpid())])"
    command = f"import os, subprocess, sys\n{started}\nsys.stdin.read()"
    line = [sys.executable, "-c", command]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"at work\n"
        parent.kill()
        assert parent.stdout.read() == b""  # returns when the worker ends


def test_workers_are_started_where_they_are_allowed_and_only_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[str, ...]] = []

    def start(*args: str) -> None:
        started.append(args)
        warming._workers.append(None)  # type: ignore[arg-type]

    monkeypatch.setattr(warming, "_workers", [])
    monkeypatch.setattr(warming, "_start", start)
    monkeypatch.setattr(_saved, "directories", lambda: (tmp_path,))
    monkeypatch.setenv(warming.WORKERS, "0")
    warming.begin()
    warming.missed("rans._encode int64")
    assert started == []
    monkeypatch.setenv(warming.WORKERS, "2")
    warming.missed("rans._encode int64")
    warming.missed("rans._decode int64")
    assert started == [("beside", "rans._encode int64", number, "2") for number in "01"]
    warming.begin()
    assert started[2:] == [("background",)]
    with monkeypatch.context() as patched:
        patched.setattr(warming, "compiled", warming.total)
        warming.begin()
    command = [sys.executable, "-c", HOLD, str(tmp_path), warming.BACKGROUND]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        running.stdout.readline()
        warming.begin()
        running.kill()
    monkeypatch.setattr(_saved, "can_save", lambda: False)
    warming.begin()
    warming._workers.clear()
    warming.missed("rans._encode int64")
    assert len(started) == 3


def test_a_system_that_starts_no_process_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def start(*args: str) -> None:
        asked.append(args)
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(warming, "_workers", [])
    monkeypatch.setattr(warming, "_start", start)
    monkeypatch.setattr(_saved, "directories", lambda: (tmp_path,))
    monkeypatch.setenv(warming.WORKERS, "1")
    warming.missed("rans._encode int64")
    warming.begin()
    assert [args[0] for args in asked] == [warming.BESIDE, warming.BACKGROUND]


def test_continuous_integration_compiles_nothing_in_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[bool] = []
    assert _kernels.warming.begin is warming.begin  # which the module of kernels remembers from then on
    monkeypatch.setattr(_kernels.warming, "begin", lambda: begun.append(True))
    monkeypatch.setenv("CI", "true")
    start.compile_ahead()
    assert begun == []
    monkeypatch.delenv("CI")
    start.compile_ahead()
    assert begun == [True]


def test_a_worker_goes_through_the_group_of_what_is_missed_first_and_from_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_signatures, "declared", lambda: [["a", "b"], ["c", "d", "e", "f"], ["g"]])
    assert warming._order("d", 0, 2) == ["f", "e", "d", "c", "g", "b", "a"]
    assert warming._order("d", 1, 2) == ["d", "c", "f", "e", "g", "a", "b"]
    assert sorted(warming._order("unknown", 2, 3)) == list("abcdefg")


def test_a_worker_takes_no_modules_from_the_folder_that_theta_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repository may hold files with the names of modules."""
    monkeypatch.chdir(tmp_path)
    for name in ("json", "numba", "theta_native"):
        (tmp_path / f"{name}.py").write_text("open('run', 'w')")
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    monkeypatch.setattr(warming, "_PROGRAM", warming._PROGRAM.replace("warming.work(", "print("))
    assert warming._start(warming.ALL).wait() == 0
    assert not (tmp_path / "run").exists()


def test_install_warm_compiles_everything(repo: Repo) -> None:
    done = repo.run(sys.executable, "-m", "theta", "install", "--warm")
    assert done.stdout == f"{warming.total()} kernels are compiled\n"


def test_install_warm_fails_where_it_could_not_keep_them(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image must not be built without them."""
    monkeypatch.setattr(warming, "_start", lambda *_: subprocess.Popen(["false"]))
    monkeypatch.chdir(repo.path)
    assert app.run(["install", "--warm"]) == ExitCode.FAILED
