"""``theta branch``."""

from theta.cli.driven import handed

app = handed("branch", "List, make or delete branches (git branch's options apply).")
