"""Repositories that mean harm: nothing of theirs is run, and nothing is written outside of the worktree.

Names as git must not check them out, links and submodules in place of manifests and stores, attributes,
settings and hooks in the tree.  Lines of all commands that write are tried on them.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from unittest import mock

from bench.trust.outcome import FaultError
from tests.compat import test_nasty_names as names
from tests.compat.nasty import FILE, LINK, NAMES, PROGRAM, SUBMODULE, Box, base, hostile, planted
from tests.compat.story import MODEL
from tests.formats.helpers import mutate
from tests.support import server
from theta.porcelain.setup import installing

_TARGETS: Final = (
    *("../outside/precious", "../outside", "/tmp", ".git/config", ".git/hooks/post-checkout", ".git"),
    *(MODEL, ".", "..", "nowhere", "\x1b]0;pwn\x07", "/proc/self/environ", "/dev/zero", "x" * 4000),
)
_STORED: Final = (".theta", f".theta/{MODEL}", f".theta/{MODEL}/x", ".theta/new", ".theta/new/deep/er")
_ATTRIBUTES: Final = (
    b"* filter=pwn diff=pwn merge=pwn -text\n",
    b"[attr]theta filter=pwn\n* theta\n",
    b"* filter=theta merge=pwn diff=pwn working-tree-encoding=UTF-16 ident eol=crlf\n",
    b"*.safetensors !filter -diff merge=union text=auto eol=crlf\n",
    b"* filter=../../outside/pwn merge=$(pwn) diff=`pwn`\n",
    b"* export-subst export-ignore filter=theta\n",
)
_CONFIG: Final = (
    b"[core]\n\tfsmonitor = pwn\n\thooksPath = .\n\tsshCommand = pwn\n\tpager = pwn\n\teditor = pwn\n"
    b'\tworktree = ../outside\n[filter "pwn"]\n\tclean = pwn\n\tsmudge = pwn\n\tprocess = pwn\n\trequired\n'
    b'[diff "pwn"]\n\tcommand = pwn\n\ttextconv = pwn\n[merge "pwn"]\n\tdriver = pwn %A\n'
    b"[gpg]\n\tprogram = pwn\n[theta]\n\tengine = pwn:pwn\n[alias]\n\tstatus = !pwn\n"
    b"[include]\n\tpath = /etc/passwd\n"
)
_MODULES: Final = (
    b'[submodule "x"]\n\tpath = sub\n\turl = ext::pwn\n\tupdate = !pwn\n',
    b'[submodule "../../hooks"]\n\tpath = .git/hooks\n\turl = ../up.git\n',
    b'[submodule "-upwn"]\n\tpath = --upload-pack=pwn\n\turl = --upload-pack=pwn\n',
)
_SETTING_FILES: Final = (
    *(".gitconfig", "config", ".lfsconfig", ".config/git/config", "sub/.gitconfig", ".theta.toml"),
    *(".theta/config", "commondir", "config.worktree", ".mailmap", ".pre-commit-config.yaml"),
)
_HOOKS: Final = ("post-checkout", "pre-commit", "post-merge", "reference-transaction", "fsmonitor-watchman")
_RULES: Final = (
    b"[check]\nfrozen = ['*']\nmax-change = {'*' = 1e999}\nignore = {pwn = ['*']}\n[engine]\nx = 'pwn:pwn'\n"
)
_PICKLE: Final = b"cposix\nsystem\n(S'pwn'\ntR."
"""Runs the program if it is loaded (pickle's protocol 0)."""

Planted = dict[str, tuple[int, bytes]]


def _links(dice: random.Random) -> Planted:
    """Links in place of checkpoints, manifests, stores and files that theta reads beside them."""
    places = (MODEL, *_STORED, ".gitattributes", ".theta.toml", "config.json", "tokenizer.json", "code.py")
    return {dice.choice(places): (LINK, os.fsencode(dice.choice(_TARGETS)))}


def _stores(dice: random.Random) -> Planted:
    """Files, programs, submodules and texts of theta in the tree where the chunks are."""
    content = dice.choice((b"", b"pwn\n", _CONFIG, _PICKLE, b"theta checkpoint 1\n", dice.randbytes(100)))
    mode = dice.choice((FILE, PROGRAM, SUBMODULE))
    return {dice.choice(_STORED): (mode, b"1" * 40 if mode == SUBMODULE else content)}


def _attributes(dice: random.Random) -> Planted:
    """Attributes that name programs."""
    folder = dice.choice(("", "", "sub/", ".theta/", f".theta/{MODEL}/"))
    return {f"{folder}.gitattributes": (FILE, dice.choice(_ATTRIBUTES))}


def _settings(dice: random.Random) -> Planted:
    """Settings of git and of theta, where these do not look for them."""
    return {dice.choice(_SETTING_FILES): (FILE, dice.choice((_CONFIG, _CONFIG, _RULES)))}


def _modules(dice: random.Random) -> Planted:
    """Submodules whose places and addresses mean harm."""
    return {".gitmodules": (FILE, dice.choice(_MODULES)), "sub": (SUBMODULE, b"1" * 40)}


def _bare(dice: random.Random) -> Planted:
    """A repository inside of the tree, with settings and hooks (safe.bareRepository of git-config(1))."""
    top = dice.choice(("inner", "sub/inner", ".theta/inner", "."))
    top = "" if top == "." else f"{top}/"
    hooks: Planted = {f"{top}hooks/{name}": (PROGRAM, b"#!/bin/sh\npwn\n") for name in _HOOKS}
    return hooks | {
        f"{top}HEAD": (FILE, b"ref: refs/heads/main\n"),
        f"{top}config": (FILE, _CONFIG),
        f"{top}refs/x": (FILE, b""),
        f"{top}objects/x": (FILE, b""),
    }


def _pickles(dice: random.Random) -> Planted:
    """Pickles by the names of checkpoints and states."""
    return {dice.choice(("model.pt", "optimizer.pkl", "x.ckpt", "training_args.bin", MODEL)): (FILE, _PICKLE)}


ATTACKS: Final = (_links, _links, _stores, _attributes, _settings, _modules, _bare, _pickles)


class Hostile:
    """Commands on repositories that mean harm."""

    name = "hostile"
    title = (
        "Hostile repositories: names, links, submodules, attributes, settings, hooks and pickles in the tree"
    )
    counts = "commands"
    each = 10

    def prepare(self, place: Path, /) -> None:
        """Make a repository with files outside, and the program that nothing may run."""
        self.place, self.number = place, 0
        self.pwn = self.place / "outer/bin/pwn"
        self.pwn.parent.parent.mkdir(parents=True)
        (self.place / "user").mkdir()
        os.environ["PATH"] = f"{self.pwn.parent}{os.pathsep}{os.environ['PATH']}"
        mock.patch.object(installing, "sys", server.Python()).start()
        server.get()
        os.environ["HOME"] = str(self.place / "user")
        self.box = base(self.place / "outer/box", self.pwn)
        self.manifest = self.box.repo.git("show", f"main:{MODEL}").encode() + b"\n"
        self.lines = names.all_lines()

    def case(self, seed: int, number: int, /) -> str:
        """Run one line of a command on a repository of one or more attacks."""
        dice = random.Random(f"hostile {seed} {number}")
        self.number += 1
        place = self.place / f"case{self.number}"
        line = dice.choice(self.lines)
        try:
            name, box, word = self._made(dice, place)
            found = names.harms(box, self.pwn, name, line)
        finally:
            shutil.rmtree(place, ignore_errors=True)
        if found:
            raise FaultError("executed" if "executed" in found else "wrong", f"{word}: {found}")
        return word

    def _made(self, dice: random.Random, place: Path) -> tuple[str, Box, str]:
        """Return a name to fill in, the repository, and a word for what it is."""
        kind = dice.random()
        if kind < 0.3:
            name = _name(dice)
            return name, hostile(self.box, name, place), "names"
        if kind < 0.45:
            data = mutate(self.manifest, dice, [b"../", b"/", b".git/hooks/pwn", b"\n", b"store ", b"0" * 40])
            return MODEL, planted(self.box, {MODEL: (FILE, data)}, place), "manifests"
        files: Planted = {}
        attacks = [dice.choice(ATTACKS) for _ in range(dice.choice((1, 1, 2, 3)))]
        for attack in attacks:
            files |= attack(dice)
        word = "several" if len(attacks) > 1 else attacks[0].__name__.strip("_")
        return dice.choice([*files]), planted(self.box, _without_clashes(files), place), word


def _name(dice: random.Random) -> str:
    """Return a nasty name, or two of them in one."""
    first, second = dice.choice(NAMES), dice.choice(NAMES)
    return dice.choice((first, first, f"{first}/{second}", f"sub/{first}", first + second))


def _without_clashes(files: Mapping[str, tuple[int, bytes]]) -> Planted:
    """Return the files but those below others, which a tree cannot have."""
    return {
        path: row
        for path, row in files.items()
        if not any(path.startswith(f"{other}/") for other in files if other != path)
    }
