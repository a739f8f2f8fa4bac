"""Commands that need no kernel and no repository start without the heavy modules."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import theta
from tests.support import Repo
from theta.errors import ExitCode
from theta.lazy import Module

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
    done = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
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


OF_THE_COMMAND_LINE = {"typer", "pydantic", "rich", "click"}
"""Modules that parse command lines and show tables."""


@pytest.mark.parametrize("line", ["hook post-checkout", "filter-process"])
def test_what_git_starts_needs_no_typer(tmp_path: Path, line: str) -> None:
    """A commit starts these several times."""
    repo = Repo.create(tmp_path / "repo")
    code, modules, _ = start("-C", str(repo.path), *line.split())
    assert code == (ExitCode.INTERRUPTED if line == "filter-process" else 0)
    assert "theta.porcelain.workspace.session" in modules
    assert modules & OF_THE_COMMAND_LINE == set()


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("hook --help", 0, "usage: theta hook"),
        ("hook -h", 0, "usage: theta hook"),
        ("filter-process --help", 0, "usage: theta filter-process"),
        ("help hook", 0, "usage: theta hook"),
    ],
)
def test_what_git_starts_has_help(line: str, code: int, words: str) -> None:
    found, modules, printed = start(*line.split())
    assert "typer" in modules
    assert (found, words in printed) == (code, True), printed


def test_what_git_starts_refuses_a_wrong_line(tmp_path: Path) -> None:
    repo = Repo.create(tmp_path / "repo")
    for line, code in (("hook", 2), ("filter-process x", 2), ("hook nosuch", 3)):
        assert start("-C", str(repo.path), *line.split())[0] == code, line


@pytest.mark.parametrize(
    "module",
    [
        "theta.codecs.chooser",
        "theta.merging.engine",
        "theta.porcelain.look.history",
        "theta.porcelain.look.overview",
        "theta.porcelain.plain_git.filtering",
        "theta.porcelain.plain_git.hooks",
    ],
)
def test_what_looks_at_no_number_imports_no_numpy(module: str) -> None:
    ask = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    modules = set(json.loads(done.stdout))
    assert module in modules
    assert modules & {"ml_dtypes", "numba", "numpy", "torch"} == set()
    assert {name for name in modules if name.startswith("theta_native")} == set()


def test_a_lazy_module_is_imported_by_its_first_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    module = Module("colorsys")
    assert "colorsys" not in sys.modules
    convert = module.rgb_to_hsv
    assert convert is sys.modules["colorsys"].rgb_to_hsv
    assert vars(module)["rgb_to_hsv"] is convert
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = module.nothing_of_the_kind
