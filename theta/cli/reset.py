"""``theta reset``."""

from theta.cli.driven import driven

app = driven("reset", "Set the branch, the index or the files to a version (git reset's options apply).")
