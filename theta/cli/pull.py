"""``theta pull``."""

from theta.cli.driven import driven

app = driven("pull", "Fetch and merge or rebase (git pull's options apply).", hooks=True)
