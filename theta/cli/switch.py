"""``theta switch``."""

from theta.cli.driven import driven

app = driven(
    "switch",
    "Change to another branch (git switch's options apply).",
)
