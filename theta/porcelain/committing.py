"""``theta commit``: stage what is asked for, let git make the commit, tell what it holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pygit2

from theta.errors import IdentityError
from theta.porcelain import adding, coverage, recording, settle, sharding, staging
from theta.porcelain.session import Session
from theta.porcelain.staging import Added
from theta.porcelain.trees import checkpoints
from theta.progress import Progress
from theta.store.changes import Changes

_TAKES_VALUE = set("mFCctS") | {
    "--message",
    "--file",
    "--author",
    "--date",
    "--fixup",
    "--squash",
    "--template",
}
_DRY = {"--dry-run", "--porcelain", "--short", "--long", "-z", "--null"}
_SHOWS = _DRY | {"-p", "--patch", "--interactive", "-v"}


@dataclass(frozen=True)
class Summary:
    """What a new commit changed."""

    commit: str
    branch: str
    subject: str
    root: bool
    checkpoints: dict[str, Changes]
    files: int
    new_files: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The summary as plain data."""
        found = {
            path: [{"status": c.status, "tensor": c.name} for c in item.tensors]
            for path, item in self.checkpoints.items()
        }
        return {
            "commit": self.commit,
            "branch": self.branch,
            "subject": self.subject,
            "checkpoints": found,
            "files": self.files,
        }


def shows_only(args: list[str]) -> bool:
    """Whether git's own output is what the user asked for."""
    return bool(_SHOWS & set(args))


def pathspecs(args: list[str]) -> list[str]:
    """The path arguments among git commit's ``args``."""
    if "--" in args:
        return args[args.index("--") + 1 :]
    found, skip = [], False
    for arg in args:
        if skip:
            skip = False
        elif arg.startswith("--"):
            skip = "=" not in arg and arg in _TAKES_VALUE
        elif arg.startswith("-") and len(arg) > 1:
            skip = arg[-1] in "mFCct" and not any(c in "mFCct" for c in arg[1:-1])
        else:
            found.append(arg)
    return found


def prepare(
    session: Session,
    cwd: Path,
    args: list[str],
    paths: list[str] | None,
    *,
    everything: bool,
    progress: Progress | None,
) -> list[Added]:
    """Stage the checkpoints that the commit takes, and bring ``.theta/`` into agreement.

    ``everything`` takes new files too where a tracked pattern matches them: git's ``-a`` would leave
    them behind, and training then overwrites the only copy.
    """
    settle.refresh(session, progress)
    added: list[Added] = []
    wanted = pathspecs(args) if paths is None else paths
    if everything or wanted:
        git = session.repo.git().in_directory(cwd)
        specs = wanted or [":(top)"]
        selection = adding.select(session, git, specs, update=True, force=False)
        if everything and not _DRY & set(args):
            selection = selection.including(coverage.newcomers(session, git, [":(top)"]))
        added = adding.add(session, selection, progress)
    raw = staging.new_raw(session, staging.sync(session))
    staging.refuse_pointers(session, raw)
    recording.tell(session)
    return added


def check_identity(session: Session) -> None:
    """Raise :class:`IdentityError` before an editor opens for a commit that git will refuse."""
    if session.repo.git().run("var", "GIT_COMMITTER_IDENT", check=False).code:
        raise IdentityError(
            "git does not know who you are",
            hint='git config --global user.name "Your Name"; git config --global user.email you@example.com',
        )


def finish(session: Session, before: str | None) -> Summary | None:
    """Settle after git made a commit; answers what it holds, or none where HEAD did not move."""
    fresh = Session.here(session.repo.worktree)
    settle.settle(fresh)
    head = fresh.repo.head()
    if head is None or head == before:
        return None
    return summarize(fresh, head)


def summarize(session: Session, oid: str) -> Summary:
    """What commit ``oid`` changed against its first parent."""
    commit = session.repo.commit(oid)
    session.expect_trees([oid, *map(str, commit.parent_ids[:1])])
    old_tree = session.repo.tree_of(str(commit.parent_ids[0])) if commit.parent_ids else None
    found = between(session, old_tree, session.repo.tree_of(oid))
    command = [
        "diff-tree",
        "--root",
        "--no-commit-id",
        "--name-status",
        "--no-renames",
        "-r",
        "-z",
        "-m",
        "--first-parent",
        oid,
    ]
    fields = session.repo.git().changes(*command, "--", ".", ":(exclude,top).theta")
    letters = dict(zip(fields[1::2], fields[0::2], strict=True))
    new = tuple(path for path, letter in letters.items() if letter == "A")
    files = len(letters.keys() - set(sharding.paths_of(found)))
    branch = "detached HEAD" if session.repo.raw.head_is_detached else session.repo.raw.head.shorthand
    subject = commit.message.strip().splitlines()[0] if commit.message.strip() else ""
    return Summary(oid, branch, subject, not commit.parent_ids, found, files, new)


def between(session: Session, old: pygit2.Tree | None, new: pygit2.Tree) -> dict[str, Changes]:
    """Path -> what changed, for each checkpoint (or sharded model) that differs between two trees."""
    before = checkpoints(session.repo, old) if old is not None else {}
    after = checkpoints(session.repo, new)
    return sharding.changed(session, before, after)
