"""``theta commit``: stage what is asked for, let git make the commit, tell what it holds."""

from __future__ import annotations

from collections.abc import Sequence
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


@dataclass(frozen=True)
class Summary:
    """What a new commit changed."""

    commit: str
    branch: str
    subject: str
    root: bool
    checkpoints: dict[str, Changes]
    files: int
    merge: bool = False
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


def prepare(
    session: Session,
    cwd: Path,
    paths: list[str],
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
    if everything or paths:
        git = session.repo.git().in_directory(cwd)
        specs = paths or [":(top)"]
        selection = adding.select(session, git, specs, update=True, force=False)
        if everything:
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
    fresh = session.again()
    settle.settle(fresh)
    head = fresh.repo.head()
    if head is None or head == before:
        return None
    return summarize(fresh, head)


def headline(session: Session, found: Summary) -> list[str]:
    """What git commit says of a new commit: its first lines, and the files beside checkpoints."""
    git = session.repo.git()
    fields = ("%h", "%s", "%an <%ae>", "%cn <%ce>", "%ad", "%cd")
    done = git.compared("show", "-s", f"--format={'%x00'.join(fields)}", found.commit)
    oid, subject, author, committer, written, committed = done.text.rstrip("\n").split("\0")
    root = " (root-commit)" if found.root else ""
    lines = [f"[{found.branch}{root} {oid}] {subject}"]
    lines += [f" Author: {author}"] if author != committer else []
    lines += [f" Date: {written}"] if written != committed else []
    if found.files and not found.merge:
        hidden = [f":(exclude,top,literal){path}" for path in sharding.paths_of(found.checkpoints)]
        what = ("--format=", "--shortstat", "--summary", found.commit, "--", ":(top)")
        lines += git.compared("show", *what, ":(exclude,top).theta", *hidden).text.splitlines()
    return lines


def moved(session: Session, old: str, new: str) -> list[str]:
    """What git says of a fast-forward (its diffstat), of checkpoints by tensor."""
    found = between(session, session.repo.tree_of(old), session.repo.tree_of(new))
    hidden = [f":(exclude,top,literal){path}" for path in sharding.paths_of(found)]
    files = ("--", ":(top)", ":(exclude,top).theta", *hidden)
    told = session.repo.git().compared("diff", "--stat", "--summary", old, new, *files).text.splitlines()
    return [f" {path}: {item.summary()}" for path, item in found.items()] + told


def summarize(session: Session, oid: str, paths: Sequence[str] = ()) -> Summary:
    """What commit ``oid`` changed against its first parent (at ``paths``, from here)."""
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
    git = session.repo.git().in_directory(session.cwd) if paths else session.repo.git()
    fields = git.changes(*command, "--", *(paths or [":(top)"]), ":(exclude,top).theta")
    letters = dict(zip(fields[1::2], fields[0::2], strict=True))
    if paths:
        named = letters.keys()
        found = {path: item for path, item in found.items() if named & {*sharding.paths_of({path: item})}}
    new = tuple(path for path, letter in letters.items() if letter == "A")
    files = len(letters.keys() - set(sharding.paths_of(found)))
    branch = "detached HEAD" if session.repo.raw.head_is_detached else session.repo.raw.head.shorthand
    subject = commit.message.strip().splitlines()[0] if commit.message.strip() else ""
    parents = len(commit.parent_ids)
    return Summary(oid, branch, subject, not parents, found, files, parents > 1, new)


def between(session: Session, old: pygit2.Tree | None, new: pygit2.Tree) -> dict[str, Changes]:
    """Path -> what changed, for each checkpoint (or sharded model) that differs between two trees."""
    before = checkpoints(session.repo, old) if old is not None else {}
    after = checkpoints(session.repo, new)
    return sharding.changed(session, before, after)
