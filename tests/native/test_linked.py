"""Kernels that were compiled once are called without numba, with the same results and the same errors."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

from theta_native import _signatures
from theta_native.object_code import linked

ROOT = Path(__file__).parents[2]

PROGRAM = """
import sys
import numpy as np
from theta_native import kernel

@kernel
def take(words, grid, pair, turn, deep, out):
    total = np.uint64(turn)
    for i in range(words.size):
        total += np.uint64(words[i]) * pair[0]
    for i in range(grid.shape[0]):
        for j in range(grid.shape[1]):
            total += np.uint64(grid[i, j]) << np.uint64(j)
    out[0] = total
    out[1] = total if deep[0] else deep[1][1][0]
    return total

@kernel
def half(x, y):
    return x / y if y > -1 else x * 0.5

@kernel
def tell(x):
    return x

@kernel
def put(out, index):
    out[index] = 1
    out[index + 1] = 100 // (index - 1)

words = np.arange(10, dtype=np.uint16)
grid = np.arange(12, dtype=np.uint8).reshape(3, 4)
fixed = words.copy()
fixed.flags.writeable = False
found = []
for one, two in ((words, grid), (fixed, grid.T), (words[::2], grid[:, ::2]), (words[:0], grid[:1])):
    if True:
        for flag in (True, False):
            out = np.zeros(2, np.uint64)
            deep = flag, (0.5, (np.uint64(7),))
            back = take(one, two, (np.uint64(3), np.uint64(1 << 63)), np.uint32(5), deep, out)
            found.append((int(back), out.tolist()))
found += map(float, [half(3.0, 4.0), half(-1.5, -2.0), half(np.float64(9), 2.0)])
found += map(int, [tell(-7), tell(7), tell(np.int64(8)), tell(np.uint64(2**63 + 9))])
for call in (lambda: half(1.0, 0.0), lambda: put(np.zeros(4, np.int64), 1)):
    try:
        call()
        found.append("no error")
    except ZeroDivisionError:
        found.append("no division")
print(take._compiled is None)
print(found)
"""


def run(cache: Path, **settings: str) -> list[str]:
    """Return whether the kernels were called without numba, and their results."""
    # with numba's other settings kernels are numba's to call
    env = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    env |= {"NUMBA_CACHE_DIR": str(cache), **settings}
    command = [sys.executable, "-W", "error", "-c", PROGRAM]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_a_kernel_takes_and_returns_what_it_does_by_numba(tmp_path: Path) -> None:
    _, plain = run(tmp_path, NUMBA_DISABLE_JIT="1")
    assert run(tmp_path) == ["False", plain]
    assert run(tmp_path) == ["True", plain]


VALUES: list[Any] = [
    *(np.zeros(3, kind) for kind in ("u1", "u2", "u4", "u8", "i1", "i8", "f4", "f8")),
    np.zeros((2, 3)),
    np.zeros((2, 3)).T,
    np.zeros((4, 6))[::2, ::2],
    np.zeros(9)[::3],
    np.frombuffer(bytes(8), np.uint16),
    np.frombuffer(bytes(9), np.uint16, offset=1, count=4),
    *(
        1,
        -1,
        True,
        0.5,
        np.uint8(1),
        np.uint16(1),
        np.uint32(1),
        np.uint64(1),
        np.int64(1),
        np.bool_(True),
        np.float32(1),
        np.float64(1),
    ),
    (1, 2),
    (1,),
    (np.uint64(1), (np.zeros(2), np.zeros(2)), (1, 0.5)),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_types_are_spelled_as_numba_spells_them(value: Any) -> None:
    assert linked.spell(value) == _signatures.spell([numba.typeof(value)])  # type: ignore[no-untyped-call]


OTHERS = [
    np.zeros(2, ">u2"),
    np.zeros(2, "c16"),
    np.zeros(2, "M8[s]"),
    np.zeros(2, bool),
    "text",
    [1],
    None,
    1 << 63,
    -(1 << 63) - 1,
    (1, 1 << 63),
]


@pytest.mark.parametrize("value", OTHERS, ids=repr)
def test_other_types_are_left_to_numba(value: Any) -> None:
    with pytest.raises(KeyError):
        linked.spell(value)


def test_what_a_kernel_was_compiled_for_is_told_apart() -> None:
    """Two values of one kind must be of one type, or a kernel reads an array as what it is not."""
    names: dict[object, set[str]] = {}
    for value in VALUES:
        names.setdefault(linked.taken((value,))[0], set()).add(linked.spell(value))
    assert all(len(found) == 1 for found in names.values())
    assert linked.taken((1 << 63, -(1 << 63))) == ((None, int), [1 << 63, -(1 << 63)])


def test_a_file_that_was_changed_is_not_linked(tmp_path: Path) -> None:
    content = linked.pack("int64", b"entry", b"code")
    path = tmp_path / "kernel"
    for end in range(len(content)):
        path.write_bytes(content[:end])
        assert not linked.is_whole(path)
        path.write_bytes(content[:end] + bytes([content[end] ^ 1]) + content[end + 1 :])
        assert not linked.is_whole(path)
    path.write_bytes(content)
    assert linked.is_whole(path)
    assert not linked.is_whole(tmp_path / "absent")
