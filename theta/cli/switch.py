"""``theta switch``."""

from theta.cli.driven import driven

app = driven("switch", "Change to another branch (git switch's options apply). A modified checkpoint is never overwritten without --discard-changes.")
