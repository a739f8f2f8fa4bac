"""Commands that need no kernel and no repository start without the heavy modules."""

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import theta
from tests.house.source import PRODUCT, Source, sources
from tests.support import Repo, make_model, random_tensors
from theta.cli import catalogue
from theta.cli.passing import Passing
from theta.lazy import Module

HEAVY = {"llvmlite", "ml_dtypes", "numba", "numpy", "pygit2", "theta_native", "torch", "zlib_ng", "zstandard"}

OF_THE_COMMAND_LINE = {"typer", "pydantic", "rich", "click"}
"""Modules that parse command lines and show tables."""

RUN = """
import json, sys
from theta.__main__ import main

def tell(event, _):
    if event == "os.exec":  # git takes the place of this process
        print(json.dumps(["git", sorted(sys.modules)]), file=sys.__stderr__)
        sys.__stderr__.flush()

sys.addaudithook(tell)
code = main()
print(json.dumps([code, sorted(sys.modules)]), file=sys.__stderr__)
"""


def start(*args: str, before: str = "", sent: str = "") -> tuple[object, set[str], str]:
    """The exit code of ``theta ARGS``, the modules that it imported, and what it printed."""
    command = [sys.executable, "-c", before + RUN, *args]
    done = subprocess.run(command, capture_output=True, text=True, check=True, input=sent)
    code, modules = json.loads(done.stderr.splitlines()[-1])
    return code, set(modules), done.stdout


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_nothing_heavy_is_imported(option: str) -> None:
    code, modules, printed = start(option)
    assert code == 0
    assert printed.strip()
    assert modules & HEAVY == set()
    assert "theta" in modules


def packets(*rows: str) -> str:
    """Lines as git sends them to a filter, and a flush packet."""
    return "".join(f"{len(row) + 5:04x}{row}\n" for row in rows) + "0000"


CHECKOUT = (
    packets("git-filter-client", "version=2")
    + packets("capability=clean", "capability=smudge")
    + packets("command=smudge", "pathname=m.safetensors")
    + packets("theta checkpoint 1")
)
"""A git that checks out a checkpoint."""


def test_a_filter_that_leaves_the_files_to_theta_opens_no_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs in each ``theta switch``, ``reset`` and ``pull``, and git waits for it."""
    monkeypatch.setenv("THETA_SMUDGE", "defer")
    _, modules, printed = start("filter-process", sent=CHECKOUT)
    assert printed.endswith(packets("status=success") + packets("theta checkpoint 1") + "0000")
    assert modules & HEAVY == set()
    assert "theta.porcelain.workspace.session" not in modules


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


def of_theta(modules: set[str], *packages: str) -> set[str]:
    """Those of ``modules`` that lie in ``packages``."""
    return {name for name in modules if name.startswith(tuple(f"{package}." for package in packages))}


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    repo = Repo.create(tmp_path_factory.mktemp("start") / "repo")
    repo.theta("track", "*.safetensors")
    make_model(repo.path / "m.safetensors", random_tensors({"a": (40, 50)}))
    repo.theta("add", "-A")
    repo.theta("commit", "-m", "one")
    repo.theta("status")
    return repo


@pytest.mark.parametrize(
    "line", ["remote -v", "rev-parse HEAD", "config user.name", "branch", "branch -a", "tag"]
)
def test_what_is_gits_alone_is_git_at_once(committed: Repo, line: str) -> None:
    """Git takes the place of theta, which has imported what reads the command line of git, and no more."""
    code, modules, printed = start("-C", str(committed.path), *line.split())
    assert code == "git"
    assert printed == committed.run("git", *line.split()).stdout
    assert modules & (HEAVY | OF_THE_COMMAND_LINE | {"subprocess", "traceback"}) == set()
    assert of_theta(modules, "theta.porcelain", "theta.store", "theta.formats", "theta.merging") == set()


def test_git_in_place_of_theta_keeps_its_code_and_ends_with_its_reader(committed: Repo) -> None:
    theta = (sys.executable, "-m", "theta")
    assert committed.run(*theta, "rev-parse", "nosuch", "--").returncode == 128
    oid = committed.run("git", "hash-object", "-w", "--stdin", stdin="x" * 1_000_000).stdout.strip()
    script = f"{' '.join(theta)} cat-file blob {oid} | head -c 1; echo ${{PIPESTATUS[0]}}"
    done = committed.run("bash", "-c", script)
    assert (done.stdout, done.stderr) == ("x141\n", "")


@pytest.mark.parametrize("line", ["branch new", "tag new", "stash list", "switch -c other", "branch -D x"])
def test_what_may_change_something_is_not(committed: Repo, line: str) -> None:
    code, _, _ = start("-C", str(committed.path), *line.split())
    assert code != "git"


NEVER_FOR_LOOKING = HEAVY - {"pygit2"} | OF_THE_COMMAND_LINE | {"uuid", "traceback"}


@pytest.mark.parametrize("line", ["status", "status --short", "log -1", "log --oneline", "branch -D nosuch"])
def test_what_looks_at_a_clean_tree_imports_what_it_needs(committed: Repo, line: str) -> None:
    """No typer for a line without options of theta; no reader, no merge, no planner where nothing changed."""
    _, modules, _ = start("-C", str(committed.path), *line.split())
    assert "theta.porcelain.workspace.session" in modules
    assert modules & NEVER_FOR_LOOKING == set()
    rooms = ("merging", "porcelain.merge", "formats", "codecs", "store.write", "store.read")
    assert of_theta(modules, *(f"theta.{room}" for room in rooms)) == set()


def test_a_commit_of_what_is_staged_imports_no_merge_and_no_codec(committed: Repo) -> None:
    """The tensors are stored by then, and nothing was merged."""
    code, modules, _ = start("-C", str(committed.path), "commit", "--allow-empty", "-m", "nothing")
    assert code == 0
    rooms = ("merging", "porcelain.merge", "porcelain.tensors", "codecs", "store.write", "store.read")
    assert of_theta(modules, *(f"theta.{room}" for room in rooms)) <= {"theta.porcelain.merge.recording"}


def test_a_start_that_needs_typer_would_be_seen(committed: Repo) -> None:
    _, modules, _ = start("-C", str(committed.path), "status", "--json")
    assert "typer" in modules


@pytest.mark.parametrize("name", ["merge", "resolve", "commit", "status", "log", "rebase"])
def test_help_imports_no_use_case(name: str) -> None:
    code, modules, _ = start(name, "--help")
    assert code == 0
    assert modules & (HEAVY | {"rich"}) == set()
    assert of_theta(modules, "theta.porcelain.commands", "theta.merging", "theta.store") == set()


def app_of(name: str) -> object:
    module = catalogue.module_of(name)
    return importlib.import_module(module).app if module else None


PASSING = sorted(
    name for group in catalogue.COMMANDS.values() for name in group if isinstance(app_of(name), Passing)
)


@pytest.mark.parametrize("name", PASSING)
def test_the_options_of_a_command_are_those_that_typer_knows(name: str) -> None:
    """A line with none of them is read without typer."""
    app = app_of(name)
    assert isinstance(app, Passing)
    options = [one for one in app.of_typer(name).params if one.param_type_name == "option"]
    of_typer = {word: not option.is_flag for option in options for word in option.opts}
    assert app.own is None or app.own == of_typer
    assert app.own is not None or of_typer


@pytest.mark.parametrize("line", ["hook post-checkout", "filter-process"])
def test_what_git_starts_needs_no_typer(tmp_path: Path, line: str) -> None:
    """A commit starts these several times."""
    repo = Repo.create(tmp_path / "repo")
    code, modules, _ = start("-C", str(repo.path), *line.split(), sent=CHECKOUT if "filter" in line else "")
    assert code == 0
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


def test_no_module_imports_a_part_of_numpy_before_the_whole() -> None:
    """While another thread imports a package, Python lets a part be imported first: one fails."""
    found = {source.module: _first_parts(source) for source in sources(*PRODUCT)}
    assert {module: parts for module, parts in found.items() if parts} == {}


def _first_parts(source: Source) -> set[str]:
    whole, parts = set[str](), set[str]()
    for node, name in source.imports(at_start=True):
        module = source.base_of(node) if isinstance(node, ast.ImportFrom) else name
        package, _, part = module.partition(".")
        if part and package == "numpy" and package not in whole:
            parts.add(module)
        whole |= set() if part else {package}
    return parts
