"""``theta completion``."""

from __future__ import annotations

import typer

from theta.cli import console, shell_words
from theta.cli.args import HELP

app = typer.Typer(add_completion=False)


@app.command(context_settings=HELP)
def completion(
    shell: str = typer.Argument("", help="bash, zsh or fish; by default the one that $SHELL names."),
) -> int:
    """Print the program with which a shell completes commands, options, refs, paths, tensors and strategies.

    For this shell alone: eval "$(theta completion bash)", eval "$(theta completion zsh)" behind compinit,
    or 'theta completion fish | source'. For every new shell: 'theta install --shell'.
    """
    console.out(*shell_words.script(shell or shell_words.shell_of_user()).splitlines())
    return 0
