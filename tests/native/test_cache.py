"""The cache of compiled kernels, loaded with pickle: it never fails, nor takes what others wrote."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import theta_native
from tests.support.confined import POWERLESS, READ_ONLY_MACHINE, as_root, read_only, tmpfs

PLACES = """
from theta_native import _saved
print(*_saved.directories())
"""

DOUBLED = """
import sys
from theta_native import _saved, kernel

@kernel
def twice(x):
    return 2 * x

assert twice(21) == 42
found = 1 if "numba" not in sys.modules else sum(twice.compiled().stats.cache_hits.values())
print(*_saved.directories())
print("lost" if _saved.lost else "saved", found)
"""


NO_HOME = Path("/proc/no/home")


def run_program(program: str, home: Path | None, prefix: list[str], env: Mapping[str, str]) -> list[str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "HOME")}
    place = {"HOME": str(home)} if home else {}
    done = subprocess.run(
        [*prefix, sys.executable, "-W", "error", "-c", program],
        env={**kept, **place, "PYTHONPATH": os.pathsep.join(sys.path), **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def directories(home: Path, **extra: str) -> list[Path]:
    """Return the directories in which kernels would be looked for."""
    return [Path(place).parent for place in run_program(PLACES, home, [], extra)[0].split()]


def run(home: Path | None, *, prefix: list[str] | None = None, **extra: str) -> tuple[list[Path], str, int]:
    """The directories that a small program used, whether what it compiled was lost, and what it found."""
    places, end = run_program(DOUBLED, home, prefix or [], extra)
    return [Path(place).parent for place in places.split()], end.split()[0], int(end.split()[1])


def of(home: Path) -> Path:
    return home / ".cache" / "theta" / "numba"


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    place = tmp_path / "temporary"
    place.mkdir()
    place.chmod(0o1777)
    return place


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the small program was compiled; copy it, never change it."""
    home = tmp_path_factory.mktemp("compiled") / "home"
    assert run(home) == ([of(home)], "saved", 0)
    return home


def test_the_cache_is_private_and_used(tmp_path: Path) -> None:
    assert run(tmp_path) == ([of(tmp_path)], "saved", 0)
    assert of(tmp_path).stat().st_mode & 0o777 == 0o700
    assert run(tmp_path) == ([of(tmp_path)], "saved", 1)


def test_a_directory_set_by_the_user_is_kept(tmp_path: Path) -> None:
    chosen = tmp_path / "elsewhere"
    assert run(tmp_path, NUMBA_CACHE_DIR=str(chosen)) == ([chosen / "theta"], "saved", 0)
    assert run(tmp_path, NUMBA_CACHE_DIR=str(chosen)) == ([chosen / "theta"], "saved", 1)
    assert not of(tmp_path).exists()


@pytest.mark.parametrize("trap", ["writable", "symlink", "file", "unsafe-parent"])
def test_an_unsafe_directory_is_not_used(tmp_path: Path, temporary: Path, trap: str) -> None:
    directory = of(tmp_path)
    directory.parent.mkdir(parents=True)
    if trap == "writable":
        directory.mkdir()
        directory.chmod(0o777)
    elif trap == "symlink":
        (tmp_path / "other").mkdir(mode=0o700)
        directory.symlink_to(tmp_path / "other")
    elif trap == "unsafe-parent":
        directory.parent.chmod(0o777)
    else:
        directory.write_text("")
    before = sorted(tmp_path.rglob("*"))
    places = directories(tmp_path, TMPDIR=str(temporary))
    assert places == [temporary / f"theta-cache-{os.geteuid()}"]
    assert [path for path in before if not path.exists()] == []
    assert places[0].stat().st_mode & 0o777 == 0o700


@as_root
def test_root_leaves_nothing_in_the_home_of_a_user(tmp_path: Path, temporary: Path) -> None:
    """Under sudo, HOME may be the user's; a directory of root there would shut the user out for good."""
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, 1234, 1234)
    assert directories(home, TMPDIR=str(temporary)) == [temporary / "theta-cache-0"]
    assert list(home.iterdir()) == []


@as_root
def test_a_directory_of_another_user_is_not_trusted(tmp_path: Path, temporary: Path) -> None:
    (place := temporary / "theta-cache-0").mkdir(mode=0o700)
    os.chown(place, 1234, 1234)
    assert run(NO_HOME, TMPDIR=str(temporary), prefix=POWERLESS) == ([], "lost", 0)


def test_c2_no_home_keeps_kernels_in_a_private_temporary_directory(temporary: Path) -> None:
    place = temporary / f"theta-cache-{os.geteuid()}"
    assert run(NO_HOME, prefix=POWERLESS, TMPDIR=str(temporary)) == ([place], "saved", 0)
    assert run(NO_HOME, prefix=POWERLESS, TMPDIR=str(temporary)) == ([place], "saved", 1)


@pytest.mark.parametrize("variable", ["HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR"])
def test_c2_a_place_that_cannot_be_written_is_no_error(
    tmp_path: Path, temporary: Path, variable: str
) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    places = {"HOME": str(locked), variable: str(locked / "below"), "TMPDIR": str(temporary)}
    found = run(None, prefix=POWERLESS, **places)
    assert found == ([temporary / f"theta-cache-{os.geteuid()}"], "saved", 0)


@pytest.mark.parametrize("mount", [False, pytest.param(True, marks=as_root)])
def test_c2_a_cache_that_can_be_read_only_is_read(
    compiled: Path, tmp_path: Path, temporary: Path, mount: bool
) -> None:
    home = shutil.copytree(compiled, tmp_path / "home")
    expected = ([of(home), temporary / f"theta-cache-{os.geteuid()}"], "saved", 1)
    if mount:
        with read_only(home):
            assert run(home, TMPDIR=str(temporary)) == expected
    else:
        for place in [home, *filter(Path.is_dir, home.rglob("*"))]:
            place.chmod(0o500)
        assert run(home, prefix=POWERLESS, TMPDIR=str(temporary)) == expected


@as_root
def test_c2_nowhere_to_write_at_all_is_no_error() -> None:
    assert run(NO_HOME, prefix=READ_ONLY_MACHINE) == ([], "lost", 0)


@as_root
def test_c2_a_full_disk_is_no_error(tmp_path: Path, temporary: Path) -> None:
    with tmpfs(tmp_path / "home", "1m") as home:
        (home / "ballast").write_bytes(bytes(1 << 20)[: -(24 << 10)])
        places, end, _ = run(home, TMPDIR=str(temporary))
        assert (places[-1], end) == (temporary / f"theta-cache-{os.geteuid()}", "saved")


@pytest.mark.parametrize("damage", ["half", "noise", "directory"])
def test_c2_a_damaged_cache_is_compiled_anew(compiled: Path, tmp_path: Path, damage: str) -> None:
    home = shutil.copytree(compiled, tmp_path / "home")
    files = [path for path in of(home).rglob("*") if path.suffix in (".nbc", ".nbi", ".kernel")]
    assert len(files) == 3
    for path in files:
        content = path.read_bytes()
        path.unlink()
        if damage == "directory":
            path.mkdir()
        else:
            path.write_bytes(content[: len(content) // 2] if damage == "half" else b"\x80no")
    assert run(home)[2] == 0
    if damage != "directory":
        assert run(home)[2] == 1


def test_another_processor_does_not_get_what_was_compiled(tmp_path: Path) -> None:
    """An image that was built on one machine runs on another, which may lack instructions."""

    def generic() -> int:
        return run(tmp_path, NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="")[2]

    assert [run(tmp_path)[2], generic()] == [0, 0]
    assert [run(tmp_path)[2], generic()] == [1, 1]


def test_another_numba_does_not_get_what_was_compiled(tmp_path: Path) -> None:
    package = tmp_path / "other" / "numba"
    package.mkdir(parents=True)
    for name, text in (("__init__.py", ""), ("_version.py", "version = '0.1'")):
        (package / name).write_text(text)
    other = f"import sys\nsys.path.insert(0, {str(package.parent)!r})\n" + PLACES
    mine, its = (run_program(program, tmp_path, [], {})[0] for program in (PLACES, other))
    assert Path(mine).parent == Path(its).parent
    assert mine != its


def test_times_of_the_sources_do_not_matter(tmp_path: Path) -> None:
    """A new installation and a copy of a container change them."""
    sources = tmp_path / "copy" / "theta_native"
    shutil.copytree(Path(theta_native.__file__).parent, sources, copy_function=shutil.copyfile)
    os.utime(sources / "_saved.py", (1, 1))
    copied = "import sys\nsys.path.insert(0, sys.argv[1])\n" + PLACES
    program = copied.replace("sys.argv[1]", repr(str(sources.parent)))
    assert run_program(program, tmp_path, [], {}) == run_program(PLACES, tmp_path, [], {})
