"""``theta push``."""

from theta.cli.driven import handed

app = handed("push", "Send commits to a remote (git push's options apply).", durable=True)
