"""``theta checkout``."""

from theta.cli.driven import driven

app = driven("checkout", "Change to another branch, or bring back files (git checkout's options apply).")
