"""The commands of theta: what each is for, and the module that it is in."""

from __future__ import annotations

from typing import Final

from theta.cli import console

COMMANDS: Final[dict[str, dict[str, str]]] = {
    "start": {
        "init": "Make a new Git repository that is ready for checkpoints",
        "clone": "Clone a repository, its checkpoints filled in",
        "demo": "Show the whole workflow on a small model, with sizes",
        "install": "Set up filter and hooks in this clone (or --global)",
        "uninstall": "Take filter and hooks out of this clone",
        "completion": "Print the completion of lines for bash, zsh or fish",
    },
    "work on checkpoints and files": {
        "track": "Track files that match a pattern as checkpoints",
        "untrack": "Stop tracking a pattern",
        "ls-files": "List the files that theta tracks",
        "add": "Stage checkpoints and files",
        "rm": "Remove checkpoints and files",
        "mv": "Rename a checkpoint or a file",
        "restore": "Bring back checkpoints and files",
        "convert": "Write a checkpoint anew in another format, or in shards",
        "migrate": "Make checkpoints of files of Git LFS, DVC, git-theta or git",
        "export-history": "Write the history without theta: plain files, or Git LFS",
        "export": "Write a committed checkpoint, or some tensors, to a file",
    },
    "look": {
        "status": "What changed, by file and by tensor",
        "diff": "Differences between versions, tensor by tensor",
        "log": "The history, without .theta/",
        "runs": "Training runs, and their steps with metrics",
        "show": "A commit, a checkpoint or a tensor",
        "cat": "The values of a tensor of any version",
        "lineage": "Which version of a checkpoint came from which, and by what",
        "blame": "Who changed each tensor of a checkpoint last, and when",
        "du": "What checkpoints, tensors and commits cost in stored bytes",
        "check": "A gate: values, shapes, budgets of change, licence, pickles",
        "sign": "Sign all files and tensors of a version, by git or with a key",
        "verify": "Verify the signatures of a version, and what was signed",
        "scan": "What the pickles of files would call when they are loaded",
        "fsck": "Check repository and checkpoints; --mend rebuilds .theta/",
        "gc": "Remove what nothing needs any more, and tell what that freed",
        "doctor": "Check set-up and state of this clone; --fix mends them",
        "help": "Help on a command or a topic",
    },
    "change history": {
        "commit": "Record a new version",
        "branch": "List, make or delete branches",
        "tag": "List, make or delete tags",
        "switch": "Change to another branch",
        "checkout": "Change to another branch, or bring back files",
        "reset": "Set the branch, the index or the files to a version",
        "merge": "Join histories, tensor by tensor",
        "resolve": "Settle checkpoints in conflict, whoever left them",
        "cherry-pick": "Apply the changes of commits here",
        "revert": "Undo the changes of commits",
        "rebase": "Apply commits again on top of another branch",
        "cascade": "Put a new base under the fine-tunes of the old one",
        "average": "The mean of versions along the history",
        "build-moe": "A mixture of experts out of versions of a model",
        "undo": "Undo the last command of theta; again, and it is redone",
        "extract-lora": "Write what a fine-tune changed as a LoRA adapter",
    },
    "share": {
        "fetch": "Bring new commits here",
        "pull": "Fetch and merge",
        "push": "Send commits to a remote",
        "bundle": "Write commits to one small file for a mail, or bring one in",
        "prune-local": "Drop stored tensors that the remote has; reading fetches them",
        "apply": "Bring a folder of files to a version, in place if wanted",
        "follow": "Keep a folder at the newest step of a training run",
    },
}
_RUNS: Final = {
    "list": "runs",
    "show": "runs",
    "best": "runs_best",
    "prune": "runs_prune",
    "publish": "runs_publish",
}
"""Second words of ``theta runs``, by the module that each is in; any other word is a run to show."""
PLUMBING: Final = {"filter-process": "filter_process", "hook": "hook"}
"""Commands that git calls, by the module that each is in."""


def module_of(name: str) -> str | None:
    """Return the module of command ``name``; None for a command that is handed to git."""
    if name == "help":
        return None
    if name in PLUMBING:
        return f"theta.cli.{PLUMBING[name]}"
    if any(name in group for group in COMMANDS.values()):
        return f"theta.cli.{name.replace('-', '_')}"
    return None


def spelled_out(name: str, args: list[str]) -> tuple[str, str | None, list[str]]:
    """Return a command with its second word, its module (None if it is git's), and the other arguments."""
    word = args[0] if args else ""
    if name == "runs" and word in _RUNS:
        is_shown = _RUNS[word] == name
        return name if is_shown else f"{name} {word}", f"theta.cli.{_RUNS[word]}", args[1:]
    return name, module_of(name), args


def show() -> None:
    """Print the commands, each with its one line."""
    console.out("usage: theta [-C DIR] [--quiet] [--color WHEN] [--version] COMMAND [ARGS]", "")
    for group, commands in COMMANDS.items():
        console.out(group)
        for name, summary in commands.items():
            console.out(f"   {name:<15}{summary}")
        console.out("")
    console.out("git's options before the command hold too: -c KEY=VALUE, --git-dir DIR, -p ...")
    console.out("Any other command is handed to git. 'theta help COMMAND' tells more, and")
    console.out("'theta help topics' lists the manuals: 'theta help tutorial' is a first hour,")
    console.out("'theta help formats' lists the kinds of files that theta reads as tensors,")
    console.out("'theta help output' tells of pager, colours and --json.")
