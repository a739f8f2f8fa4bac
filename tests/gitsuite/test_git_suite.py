"""git's own test suite through theta, compared with git test by test: see README.md beside this file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gitsuite import campaign_runner as runner

pytestmark = pytest.mark.gitsuite

CASES = [(mode, script) for mode in runner.MODES for script in runner.scripts(mode)]


@pytest.fixture(scope="session")
def tree(pytestconfig: pytest.Config) -> Path:
    """The built source tree of git."""
    given = pytestconfig.getoption("--git-tree")
    assert given, "--git-tree names a built source tree of git; tests/gitsuite/README.md tells how to get one"
    assert (Path(given) / "bin-wrappers" / "git").exists(), f"{given} is not built"
    return Path(given).resolve()


@pytest.fixture(scope="session")
def stand_ins(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[runner.StandIns]:
    """The programs that scripts take for git, started on first use."""
    with runner.StandIns(tree, tmp_path_factory.mktemp("git")) as found:
        yield found


@pytest.mark.parametrize(("mode", "script"), CASES)
def test_a_script(mode: str, script: str, stand_ins: runner.StandIns, tmp_path: Path) -> None:
    """Tests that pass with git pass through theta, those in known.txt aside; no checkpoint is lost."""
    with_git = stand_ins.run(runner.MODES[mode].control, script, tmp_path / "git")
    through = stand_ins.run(runner.MODES[mode].kind, script, tmp_path / "theta")
    differing = runner.differing(with_git, through)
    assert differing <= runner.known(mode, script), runner.told(through, differing)
    assert through.lost == []


def test_every_known_difference_has_a_reason() -> None:
    for mode, script, numbers, reason in runner.known_lines():
        assert mode in runner.MODES and script in runner.scripts(mode), (mode, script)
        assert numbers and len(reason.split()) > 3, (mode, script)
