"""``theta rm``."""

from theta.cli.driven import driven

app = driven("rm", "Remove checkpoints and files from the worktree and the index (git rm's options apply).")
