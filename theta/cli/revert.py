"""``theta revert``."""

from theta.cli.sequences import sequence

app = sequence(
    "revert",
    """Undo the changes of commits by new commits (git revert's options apply).

    Where a tensor was changed again since, git stops; theta settles it by -X, or asks, and lets git
    go on. 'theirs' is the state before the commit that is undone.
    """,
)
