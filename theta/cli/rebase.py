"""``theta rebase``."""

from theta.cli.sequences import sequence

app = sequence(
    "rebase",
    """Apply commits again on top of another branch (git rebase's options apply).

    Where a tensor was changed on both sides git stops; theta settles it by -X, or asks, and lets git
    go on. 'ours' is the branch that is rebased on, 'theirs' the commit that is applied, as in git.
    """,
)
