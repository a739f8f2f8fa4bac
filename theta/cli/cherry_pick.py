"""``theta cherry-pick``."""

from theta.cli.sequences import sequence

app = sequence(
    "cherry-pick",
    """Apply the changes of commits here (git cherry-pick's options apply).

    Where a tensor was changed on both sides git stops; theta settles it by -X, or asks, and lets git
    go on. 'theirs' is the commit that is applied.
    """,
)
