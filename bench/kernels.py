"""Write theta_native/signatures.txt anew: the kernels that theta compiles, and what needs them.

    python bench/kernels.py            write the file
    python bench/kernels.py --times    print what each kernel takes to compile, in processor seconds

Commits a small model, a full fine-tune, a merged LoRA, a sparse change and a scaled one, restores all
of them, and merges two, in bf16, f32 and f16, as a user does; each kernel stands where it is first needed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import models
import numpy as np

DTYPES = ("BF16", "F32", "F16")
MERGES = ("average", "slerp:t=0.3", "ties:density=0.5", "della")
SIDE = 512
RECORD = """
import kernels, sys
kernels.recorded(sys.argv.pop(1), sys.argv.pop(1))
"""
TARGET = Path(__file__).parents[1] / "theta_native" / "signatures.txt"


def recorded(record: str, times: str) -> None:
    """Run theta with this process's arguments; ``record`` tells what it asked the kernel cache for."""
    import theta_native
    from theta.__main__ import main
    from theta_native import _saved, _signatures
    from theta_native.digests import keyed, sha1, sha256

    lines: dict[str, None] = {}
    real, began = _saved.Saved.load_overload, time.thread_time()

    def load(self: Any, signature: Any, context: Any) -> Any:
        spelled = _signatures.spell(signature)
        if "Literal[" not in spelled:  # called by another kernel with a constant, and compiled with that
            lines[f"{self._name} {spelled}"] = None
        return real(self, signature, context)

    setattr(_saved.Saved, "load_overload", load)  # noqa: B010
    setattr(_saved, "load", lambda *_: None)  # noqa: B010
    setattr(theta_native._Course, "_unlinked", theta_native._Kernel._unlinked)  # noqa: B010
    if times:
        _print_times()
    if sys.argv[1] == "add":
        sha1._both(b"", b"")
        sha256._both(b"", b"")  # no command asks for these before they are compiled
        keyed.KeyedHash(b"").of(b"")
    code = main()
    if times:
        print(f"{time.thread_time() - began:6.2f} in all", file=sys.stderr)
    with open(record, "a", encoding="ascii") as file:
        file.writelines(f"{line}\n" for line in lines)
    os._exit(code)


def _print_times() -> None:
    import numba  # noqa: F401
    from numba.core import event

    stack: list[list[float]] = []

    class Clock(event.Listener):
        def on_start(self, _: Any) -> None:
            stack.append([time.thread_time(), 0.0])

        def on_end(self, ended: Any) -> None:
            began, inner = stack.pop()
            spent = time.thread_time() - began
            if stack:
                stack[-1][1] += spent
            function = ended.data["dispatcher"].py_func
            name = f"{function.__module__.removeprefix('theta_native.')}.{function.__name__}"
            print(f"{spent - inner:6.2f} {name:34} {str(ended.data['args'])[:120]}", file=sys.stderr)

    event.register("numba:compile", Clock())  # type: ignore[no-untyped-call]


def versions(folder: Path, dtype: str) -> list[Path]:
    """A model of ``dtype``, and versions of it with one kind of change each."""
    shapes = {f"{name}.weight": (SIDE, SIDE) for name in ("q_proj", "k_proj", "v_proj")}
    shapes |= {"embed.weight": (3 * SIDE, SIDE), "norm.weight": (SIDE,)}
    random = np.random.default_rng(0)
    base = {name: random.normal(0, 0.02, shape).astype(np.float32) for name, shape in shapes.items()}
    base = {name: value.astype(models.NUMPY[dtype]) for name, value in base.items()}
    changed: dict[str, dict[str, Any]] = {"base": {}}
    for kind in ("full", "lora"):
        changed[kind] = {name: models.CHANGES[kind](name, value, random) for name, value in base.items()}
    some = base["embed.weight"].copy()
    some[random.random(some.shape) < 0.01] *= some.dtype.type(1.5)
    changed["sparse"] = {"embed.weight": some}
    for kind, share in (("step", 0.05), ("small-step", 0.01)):
        moved = base["embed.weight"].copy()
        moved.view(f"u{moved.dtype.itemsize}")[random.random(moved.shape) < share] += 1
        changed[kind] = {"embed.weight": moved}
    scale = random.normal(1, 0.05, (3 * SIDE, 1)).astype(np.float32)
    changed["scaled"] = {"embed.weight": base["embed.weight"].astype(np.float32) * scale}
    for kind, values in changed.items():
        models.stream(folder / kind, shapes, dtype, [values.get(name, base[name]) for name in shapes])
    return [folder / kind for kind in changed]


class Journey:
    """One repository, whose kernels are recorded command by command."""

    def __init__(self, folder: Path, *, times: bool) -> None:
        self.folder, self.times = folder, times
        self.lines: list[list[str]] = []
        self.known: set[str] = set()
        self.env = {**os.environ, "GIT_CONFIG_GLOBAL": str(folder / "config"), "THETA_KERNEL_WORKERS": "0"}
        self.env |= {"PYTHONPATH": os.pathsep.join(map(str, (TARGET.parents[1], Path(__file__).parent)))}
        for key, value in (("user.name", "Ada"), ("user.email", "ada@example.com")):
            self.run("git", "config", "--global", key, value)
        self.run("git", "init", "-q", "repository")

    def run(self, *command: str) -> None:
        """Run a command that must succeed."""
        where = self.folder / ("repository" if (self.folder / "repository").exists() else ".")
        quiet = None if self.times else subprocess.DEVNULL
        subprocess.run(command, cwd=where, env=self.env, check=True, stdout=quiet, stderr=quiet)

    def theta(self, *args: str) -> None:
        """Run ``theta ARGS``; the kernels that no command before asked for are a group."""
        record = self.folder / "record"
        record.write_text("")
        if self.times:  # each command begins with an empty cache
            cache = tempfile.mkdtemp(dir=self.folder)
            self.env["NUMBA_CACHE_DIR"] = cache
            print(f"theta {' '.join(args)}", file=sys.stderr)
        self.run(sys.executable, "-c", RECORD, str(record), "times" if self.times else "", *args)
        lines = [line for line in record.read_text().splitlines() if line not in self.known]
        self.known.update(lines)
        if lines:
            self.lines.append(lines)

    def walk(self, dtype: str) -> None:
        """Commit every version on the first, then restore each, and merge two of them."""
        name = f"{dtype}.safetensors"
        paths = versions(self.folder / "models" / dtype, dtype)
        for path in paths:
            (self.folder / "repository" / name).write_bytes(path.read_bytes())
            self.theta("add", name)
            self.run(sys.executable, "-m", "theta", "commit", "-q", "-m", f"{dtype}, {path.name}")
            self.run("git", "tag", f"{dtype}-{path.name}")
            self.run(sys.executable, "-m", "theta", "reset", "-q", "--hard", f"{dtype}-base")
        for path in paths[1:]:
            self.theta("switch", "-q", "--detach", f"{dtype}-{path.name}")
        for strategy in MERGES:
            self.run(sys.executable, "-m", "theta", "reset", "-q", "--hard", f"{dtype}-full")
            self.theta("merge", "-q", "--no-prompt", "-m", strategy, "-X", strategy, f"{dtype}-lora")


def groups(dtypes: tuple[str, ...] = DTYPES, *, times: bool = False) -> list[list[str]]:
    """The lines of ``signatures.txt``, in groups."""
    with tempfile.TemporaryDirectory() as folder:
        journey = Journey(Path(folder), times=times)
        journey.theta("track", "*.safetensors")
        journey.run(sys.executable, "-m", "theta", "commit", "-q", "-m", "track")
        for dtype in dtypes:
            journey.walk(dtype)
        return journey.lines


def main() -> None:
    """Write the file, or print times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--times", action="store_true")
    options = parser.parse_args()
    found = groups(times=options.times)
    if not options.times:
        TARGET.write_text("\n\n".join("\n".join(group) for group in found) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
