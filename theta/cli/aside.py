"""Commands of git in repositories that theta has no part in: git does them, with the very arguments.

Output, exit code, options, environment and hooks are git's there.  A line with an option of theta's own, or
with a strategy for tensors, is theta's everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from theta.cli import arrivals, console, differing, terminal, untold, untouched
from theta.errors import ThetaError
from theta.lazy import Module

if TYPE_CHECKING:
    from theta.cli import common
    from theta.git import run
    from theta.porcelain.commands import merge_request
    from theta.porcelain.drive import running
    from theta.porcelain.setup import installing
    from theta.porcelain.stage import run_steps
    from theta.porcelain.workspace import session
else:
    common = Module("theta.cli.common")
    installing = Module("theta.porcelain.setup.installing")
    merge_request = Module("theta.porcelain.commands.merge_request")
    run = Module("theta.git.run")
    running = Module("theta.porcelain.drive.running")
    run_steps = Module("theta.porcelain.stage.run_steps")
    session = Module("theta.porcelain.workspace.session")

_OF_SEQUENCES: Final = frozenset(("--rule", "--recipe", "--seed", "--allow-nan", "--no-prompt", "--json"))
OWN: Final[dict[str, frozenset[str]]] = {
    **dict.fromkeys(("rm", "mv", "restore", "branch", "tag", "fetch"), frozenset()),
    **dict.fromkeys(("switch", "checkout", "reset", "pull", "push"), frozenset(("--json",))),
    **dict.fromkeys(("cherry-pick", "revert", "rebase"), _OF_SEQUENCES),
    "merge": _OF_SEQUENCES
    | {"--scope", "--statistics", "--dry-run", "--html", "--md", "--replay", "--dtype"}
    | {"--search", "--score", "--search-by", "--trials", "--minimize", "--align", "--align-spec"},
    "add": frozenset(("--update-type", "--update-data", "--weight", "--json")),
    "commit": frozenset(("--json",)),
    "status": frozenset(("--json",)),
    "diff": frozenset(("--stats", "--tensor", "--json", "--html", "--md")),
    "log": frozenset(("--tensor", "--json", "--run", "--sort", "--html", "--md")),
    "show": frozenset(("--codecs", "--json", "--html", "--md", "--against", "--tensor")),
}
"""theta's own options of the commands that git has too; -X aside, which both have."""
_STAGE: Final = ("add", "commit")
MOVE: Final = frozenset(
    (
        *("am", "bisect", "checkout", "cherry-pick", "merge", "pull", "read-tree", "rebase", "reset"),
        *("restore", "revert", "sparse-checkout", "stash", "submodule", "switch", "worktree"),
    )
)
"""Commands that may bring checkpoints into a repository that has none."""


def by_git(name: str, args: Sequence[str], *, alone: bool) -> int | None:
    """Run ``git NAME ARGS`` if theta has no part in the repository here; otherwise return None.

    ``alone``: git may take the place of this process.
    """
    if _is_own(name, args) or not _is_untouched():
        if differing.commits(name, args) and not untouched.has_filter():  # git may have staged raw bytes
            arrivals.take_up(differing.changed())
        return None
    console.flush()
    if name in _STAGE:
        return _staged(name, args)
    if alone and name not in MOVE:
        run.become(name, *args, as_user=True)
    code = run.as_user(name, *args)
    if untouched.here() is False:
        return _settled(code)
    if differing.names_files(name, args) and arrivals.take_up_manifests(
        differing.changed(untracked=name == "restore")
    ):
        return None if name == "restore" else code
    return code if untouched.here() else _settled(code)


def _is_own(name: str, args: Sequence[str]) -> bool:
    """Return whether a line asks for something of theta's, or for help."""
    if list(args) == ["-h"] or list(args[:1]) == ["--help"]:
        return True
    words = args[: list(args).index("--")] if "--" in args else args
    own = OWN.get(name, frozenset())
    if any(word.partition("=")[0] in own for word in words):
        return True
    if name in ("diff", "log", "show"):
        return any(":" in word and "#" in word for word in words)
    if name not in ("merge", "cherry-pick", "revert", "rebase"):
        return False
    short = "-s" if name in ("merge", "rebase") else "--strategy="  # -s of the others is --signoff
    has_strategy = any(word == "--strategy" or word.startswith((short, "--strategy=")) for word in words)
    return not has_strategy and any(_of_tensors(words))  # all -X belong to git's strategy


def _of_tensors(words: Sequence[str]) -> Iterator[bool]:
    """Yield for each -X whether it may be about tensors."""
    for word, following in zip(words, [*words[1:], ""], strict=False):
        if word.startswith(("-X", "--strategy-option")):
            value = word.removeprefix("-X").removeprefix("--strategy-option").removeprefix("=") or following
            yield value != "minimal" and merge_request.is_of_tensors(value)  # git refuses that one itself


def _is_untouched() -> bool:
    known = untouched.here()
    return known if known is not None else _opened_is_untouched()


def _opened_is_untouched() -> bool:
    try:
        repo = session.Session.here(".").repo
        return not (repo.private.exists() or installing.is_used(repo) or run_steps.are_in(repo))
    except ThetaError:
        return False


def _settled(code: int) -> int:
    """Bring checkpoints that git may have brought into agreement; return ``code``."""
    found = common.session_or_none()
    if found is None or not common.uses_theta(found):
        return code
    notes = running.after_git(found, terminal.progress)
    return common.stopped(found, common.told(running.Driven(code, notes=notes)))


def _staged(name: str, args: Sequence[str]) -> int | None:
    """Run a command that stages files; tell of those that look like checkpoints and that nothing tracks.

    None if there are checkpoints of theta's among them: theta's own command is to take them.
    """
    before = differing.staged() if name == "add" else differing.changed()
    if differing.commits(name, args) and arrivals.take_up(before):
        return None
    code = run.as_user(name, *args)
    new = differing.new_paths(before)
    if name == "add":
        after = differing.staged()
        if arrivals.take_up(after - before):
            return None
        untold.tell(differing.new_paths(after) - new)
    elif new and not code:
        untold.tell(new - differing.new_paths(differing.staged()))
    return code
