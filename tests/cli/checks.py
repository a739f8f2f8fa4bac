"""The form of every refusal of the command line."""

from __future__ import annotations

import subprocess

from tests.support.repos import describe

Done = subprocess.CompletedProcess[str]


def refused(done: Done, code: int, *words: str) -> None:
    """Assert one ``error:`` line with ``words``, at most one ``hint:`` line, and the exit code."""
    lines = done.stderr.splitlines()
    assert done.returncode == code, describe(done)
    assert [line.split(":")[0] for line in lines] in (["error"], ["error", "hint"]), describe(done)
    assert len(lines[0]) > len("error: "), describe(done)
    for word in words:
        assert word in lines[0], describe(done)
    never_a_bug(done)


def never_a_bug(done: Done) -> None:
    """Assert that nothing unforeseen was printed, whatever the exit code."""
    said = done.stdout + done.stderr
    assert done.returncode != 70, describe(done)
    assert "Traceback" not in said, describe(done)
    assert "this is a bug" not in said, describe(done)
