"""Commands that need no kernel and no repository start without the heavy modules."""

import json
import subprocess
import sys

import pytest

import theta

HEAVY = {"llvmlite", "ml_dtypes", "numba", "numpy", "pygit2", "theta_native", "torch", "zstandard"}

RUN = """
import json, sys
from theta.__main__ import main
code = main()
print(json.dumps([code, sorted(sys.modules)]), file=sys.__stderr__)
"""


def start(*args: str, before: str = "") -> tuple[object, set[str], str]:
    """The exit code of ``theta ARGS``, the modules that it imported, and what it printed."""
    command = [sys.executable, "-c", before + RUN, *args]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    code, modules = json.loads(done.stderr.splitlines()[-1])
    return code, set(modules), done.stdout


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_nothing_heavy_is_imported(option: str) -> None:
    code, modules, printed = start(option)
    assert code == 0
    assert printed.strip()
    assert modules & HEAVY == set()
    assert "theta" in modules


def test_the_package_is_imported_without_anything_heavy() -> None:
    """All names of the API are there at once; what they need comes when they are used."""
    program = "import json, sys, theta; dir(theta); print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    modules = set(json.loads(done.stdout))
    assert modules & HEAVY == set()
    ours = {name for name in modules if name.startswith("theta")}
    assert ours == {"theta", "theta._version", "theta.errors"}


def test_every_name_of_the_package_is_there() -> None:
    assert set(theta._HOMES) <= set(theta.__all__) == set(dir(theta))
    assert all(getattr(theta, name) is not None for name in theta.__all__)
    assert {getattr(theta, name).__module__ for name in theta._HOMES} == set(theta._HOMES.values())
    with pytest.raises(AttributeError, match="nope"):
        theta.nope  # noqa: B018


def test_a_heavy_import_would_be_seen() -> None:
    _, modules, _ = start("--version", before="import numpy\n")
    assert "numpy" in modules & HEAVY


def test_the_version_is_that_of_the_package() -> None:
    from theta._version import __version__

    assert __version__ in start("--version")[2].split()
