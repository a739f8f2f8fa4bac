"""Scores of a command: the last line that it prints is the number."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Final

from theta.errors import ThetaError, UsageError
from theta.git.run import shell_output
from theta.porcelain.search.trials import Score

PLACE: Final = "{}"
VARIABLE: Final = "THETA_CANDIDATE"


def by_command(command: str) -> Score:
    """Return the score that ``command`` prints; ``{}`` in it becomes the path of the candidate.

    The name of a checkpoint comes from the repository, and the user may have put ``{}`` in quotes: a path
    that the shell would not read as one word goes by the environment only.

    Raises :class:`UsageError` if the command does not say where the path goes.  The score raises that for
    such a path, and :class:`ThetaError` if the command fails, or its last line is no number.
    """
    if PLACE not in command and VARIABLE not in command:
        raise UsageError(
            "the command does not say where the candidate goes", hint="--score 'python score.py {}'"
        )

    def score(place: Path) -> float:
        if PLACE in command and shlex.quote(str(place)) != str(place):
            raise UsageError(
                f"{place.name!r} is no name for a command line", hint=f"use ${VARIABLE} in place of {{}}"
            )
        line = command.replace(PLACE, str(place))
        code, text = shell_output(line, {VARIABLE: str(place)})
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
