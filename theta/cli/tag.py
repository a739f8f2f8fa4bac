"""``theta tag``."""

from theta.cli.driven import handed

app = handed("tag", "List, make or delete tags (git tag's options apply).")
