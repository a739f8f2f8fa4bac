"""Scores of a command: the last line that it prints is the number."""

from __future__ import annotations

from pathlib import Path

from theta.errors import ThetaError, UsageError
from theta.git.run import PLACE, VARIABLE, about, shell_output
from theta.porcelain.search.trials import Score


def by_command(command: str) -> Score:
    """Return the score that ``command`` prints; ``{}`` in it becomes the path of the candidate.

    Raises :class:`UsageError` if the command does not say where the path goes.  The score raises that for
    a path that no command line can have, and :class:`ThetaError` if the command fails, or its last line is
    no number.
    """
    if PLACE not in command and VARIABLE not in command:
        raise UsageError(
            "the command does not say where the candidate goes", hint="--score 'python score.py {}'"
        )

    def score(place: Path) -> float:
        line, more = about(command, place)
        code, text = shell_output(line, more)
        if code:
            raise ThetaError(f"the score of a candidate failed with exit code {code}", hint=line)
        last = next((row for row in reversed(text.splitlines()) if row.strip()), "")
        if not last:
            raise ThetaError("the score of a candidate printed nothing", hint=line)
        try:
            return float(last)
        except ValueError as error:
            raise ThetaError(f"the last line of the score is no number: {last[:80]!r}", hint=line) from error

    return score
