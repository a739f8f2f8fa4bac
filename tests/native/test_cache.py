"""Where numba keeps compiled code, which it loads with pickle."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SHOW = "import os, theta_native; print(theta_native.CACHED, os.environ.get('NUMBA_CACHE_DIR', ''))"


def run(home: Path, **extra: str) -> list[str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    done = subprocess.run(
        [sys.executable, "-c", SHOW],
        env={**kept, "HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path), **extra},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_the_cache_is_private(tmp_path: Path) -> None:
    expected = tmp_path / ".cache" / "theta" / "numba"
    assert run(tmp_path) == ["True", str(expected)]
    assert expected.stat().st_mode & 0o777 == 0o700


def test_a_directory_set_by_the_user_is_kept(tmp_path: Path) -> None:
    assert run(tmp_path, NUMBA_CACHE_DIR="/elsewhere") == ["True", "/elsewhere"]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="POSIX permissions")
@pytest.mark.parametrize("trap", ["writable", "symlink", "file"])
def test_an_unsafe_directory_is_not_used(tmp_path: Path, trap: str) -> None:
    directory = tmp_path / ".cache" / "theta" / "numba"
    directory.parent.mkdir(parents=True)
    if trap == "writable":
        directory.mkdir()
        directory.chmod(0o777)
    elif trap == "symlink":
        (tmp_path / "other").mkdir(mode=0o700)
        directory.symlink_to(tmp_path / "other")
    else:
        directory.write_text("")
    assert run(tmp_path) == ["False"]
