"""``theta fetch``."""

from theta.cli.driven import handed

app = handed("fetch", "Bring new commits here (git fetch's options apply).")
