"""The rules of choke points: functions that only one module may use, or none.

Names are resolved through imports, and a mere reference counts as a use, so that an alias or
a function passed as a value is seen too.
"""

from __future__ import annotations

import ast
import re
from typing import Final

from tests.house.source import Source, within

_DISK_NAMES: Final = re.compile(
    r"os\.(chflags|chmod|chown|copy_file_range|fchmod|fchown|ftruncate|lchmod|lchown|link|makedirs|mkdir|mkfifo"
    r"|mknod|posix_fallocate|pwritev?|remove|removedirs|removexattr|renames?|replace|rmdir|sendfile|setxattr"
    r"|splice|symlink|truncate|unlink|utime|writev?)"
    r"|shutil\.(?!(disk_usage|get_terminal_size|which)$)\w+"
    r"|numpy\.(save\w*|lib\.format\.open_memmap)"
)
FRAMEWORKS: Final = (
    *("torch", "tensorflow", "jax", "flax", "keras", "transformers", "accelerate", "lightning"),
    *("pytorch_lightning", "safetensors", "orbax"),
)
"""Libraries that models are trained with, and that of their files."""
_DISK_METHODS: Final = re.compile(
    r"l?chmod|hardlink_to|link_to|mkdir|rename|rmdir|symlink_to|tofile|touch|truncate|unlink|write_(bytes|text)"
)
_OPENERS: Final = re.compile(r"(builtins|bz2|codecs|gzip|io|lzma)\.open|io\.FileIO|os\.fdopen")
_READING_FLAGS: Final = re.compile(r"O_(BINARY|CLOEXEC|DIRECTORY|NOATIME|NOFOLLOW|NONBLOCK|PATH|RDONLY)")
_MODE: Final = re.compile(r"[rwaxbtU+]{1,4}")


def disk(source: Source) -> list[str]:
    """Find uses of functions that change the disk."""
    found = _imported(source, "dbm", "shelve", "sqlite3", "tempfile")
    found += _referenced(source, _DISK_NAMES.pattern, "writes to disk")
    called = set()
    for call, name in source.calls():
        called.add(call.func)
        if complaint := _opening(call, name):
            found.append(source.at(call, complaint))
    for node, name in source.references():
        if _OPENERS.fullmatch(name) and node not in called:
            found.append(source.at(node, f"{name} as a value can write"))
        elif isinstance(node, ast.Attribute) and _is_disk_method(source, node):
            found.append(source.at(node, f".{node.attr} writes to disk"))
    return found


def _opening(call: ast.Call, name: str) -> str:
    """Return the complaint about a call that opens, maps or replaces a file; "" if there is none."""
    mode = _argument(call, 1, "mode")
    if _OPENERS.fullmatch(name) and not _reads(mode):
        return f"{name} may write (mode {_spell(mode)})"
    if name == "os.open" and not _reading_flags(_argument(call, 1, "flags")):
        return "os.open may write"
    access, file = _spell(_argument(call, 3, "access", "prot")), _spell(_argument(call, 0, "fileno"))
    if name == "mmap.mmap" and file != "-1" and ("READ" not in access or "WRITE" in access):
        return "mmap.mmap may write: say access=mmap.ACCESS_READ"
    if name == "numpy.memmap" and _constant(_argument(call, 2, "mode")) not in ("r", "c"):
        return "numpy.memmap may write: say mode='r'"
    if name.endswith(".open") and not _OPENERS.fullmatch(name) and name != "os.open":
        first = _constant(_argument(call, 0, "mode"))
        if isinstance(first, str) and _MODE.fullmatch(first) and not set(first) <= set("rbt"):
            return f".open({first!r}) writes to disk"
    # str.replace takes two arguments, Path.replace one.
    if name.endswith(".replace") and not name.startswith("os.") and len(call.args) == 1 and not call.keywords:
        return ".replace with one argument renames a file"
    return ""


def _argument(call: ast.Call, place: int, *keywords: str) -> ast.expr | None:
    for keyword in call.keywords:
        if keyword.arg in keywords:
            return keyword.value
    return call.args[place] if place < len(call.args) else None


def _constant(node: ast.expr | None) -> object:
    return node.value if isinstance(node, ast.Constant) else None


def _spell(node: ast.expr | None) -> str:
    return "" if node is None else ast.unparse(node)


def _reads(mode: ast.expr | None) -> bool:
    value = _constant(mode)
    return mode is None or (isinstance(value, str) and set(value) <= set("rbt"))


def _reading_flags(flags: ast.expr | None) -> bool:
    if flags is None:
        return False
    names = {node.attr for node in ast.walk(flags) if isinstance(node, ast.Attribute)}
    names |= {node.id for node in ast.walk(flags) if isinstance(node, ast.Name)} - {"os"}
    return bool(names) and all(map(_READING_FLAGS.fullmatch, names))


def _is_disk_method(source: Source, node: ast.Attribute) -> bool:
    """Return whether this is a method that writes; members of ``os`` and our modules are judged by name."""
    owner = source.names.get(node.value.id, "") if isinstance(node.value, ast.Name) else ""
    return bool(_DISK_METHODS.fullmatch(node.attr)) and not within(owner, "os", "theta")


def _imported(source: Source, *modules: str) -> list[str]:
    return [
        source.at(node, f"imports {target}") for node, target in source.imports() if within(target, *modules)
    ]


def _referenced(source: Source, pattern: str, complaint: str) -> list[str]:
    match = re.compile(pattern).fullmatch
    return [source.at(node, f"{name} {complaint}") for node, name in source.references() if match(name)]


def programs(source: Source) -> list[str]:
    """Find uses of functions that start a program or another process."""
    names = (
        r"os\.(system|popen|startfile|exec\w+|spawn\w+|posix_spawnp?|fork|forkpty)"
        r"|asyncio\.(subprocess(\..*)?|create_subprocess_\w+)"
        r"|concurrent\.futures\.ProcessPoolExecutor"
    )
    modules = ("subprocess", "asyncio.subprocess", "multiprocessing", "pty", "pdb", "runpy", "webbrowser")
    return _referenced(source, names, "starts a program") + _imported(source, *modules)


def printing(source: Source) -> list[str]:
    """Find uses of functions that write to a terminal or ask a person."""
    names = (
        r"builtins\.(print|input|breakpoint)|sys\.(__)?(stdin|stdout|stderr)(__)?"
        r"|logging\.(basicConfig|StreamHandler)"
    )
    return _referenced(source, names, "belongs in theta.cli") + _imported(
        source, "rich", "typer", "click", "getpass", "curses", "readline"
    )


def terminal(source: Source) -> list[str]:
    """Find output that bypasses ``theta.cli.console``, which makes foreign text safe to show."""
    streams = _referenced(source, r"sys\.(__)?(stdout|stderr)(__)?|rich\.markup\.\w+", "goes around console")
    names = (
        r"builtins\.(print|input)|warnings\.warn|traceback\.print_\w+|getpass\.\w+"
        r"|rich\.(print\w*|get_console|inspect|console\.Console|(progress|prompt|live)\.[\w.]+)"
        r"|(typer|click)\.(echo\w*|secho|confirm|prompt|pause|edit|progressbar|clear)"
    )
    asked = [
        source.at(call, f"{name} goes around console")
        for call, name in source.calls()
        if re.fullmatch(names, name)
    ]
    return streams + asked


def environment(source: Source) -> list[str]:
    """Find uses of the environment."""
    return _referenced(source, r"os\.(environb?|getenvb?|putenv|unsetenv)", "reads the environment")


def directory(source: Source) -> list[str]:
    """Find uses of the current directory."""
    names = r"os\.(getcwdb?|f?chdir)|pathlib\.(Posix|Windows)?Path\.cwd"
    return _referenced(source, names, "depends on the current directory")


def unsafe(source: Source) -> list[str]:
    """Find uses of modules that run code from a checkpoint or a repository."""
    found = _referenced(
        source,
        r"builtins\.(eval|exec|compile|__import__)|yaml\.(load|load_all|unsafe_\w+|full_\w+|Unsafe\w+)",
        "can run what it reads",
    )
    found += _imported(source, "pickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib")
    for call, _ in source.calls():
        for keyword in call.keywords:
            if keyword.arg == "allow_pickle" and _constant(keyword.value) is not False:
                found.append(source.at(call, "allow_pickle runs what it reads"))
    return found


def frameworks(source: Source) -> list[str]:
    """Find imports of what people train with; their loaders run what they read."""
    return _imported(source, *FRAMEWORKS)


def numba(source: Source) -> list[str]:
    """Find imports of numba outside theta_native, and imports of theta_native at import time."""
    found = [] if within(source.module, "theta_native") else _imported(source, "numba", "llvmlite")
    if within(source.module, "theta"):
        for node, target in source.imports(at_start=True):
            if within(target, "theta_native"):
                found.append(source.at(node, "import theta_native inside the function that needs it"))
    return found


def lines(source: Source) -> list[str]:
    """Find uses of ``splitlines``, for which a form feed or U+2028 in a name or a subject ends a line."""
    return [
        source.at(node, "splitlines() takes names apart")
        for node in source.nodes
        if isinstance(node, ast.Attribute) and node.attr == "splitlines"
    ]


def libgit2(source: Source) -> list[str]:
    """Find uses of pygit2, and of its repository inside ours."""
    found = _imported(source, "pygit2")
    for node in source.nodes:
        if _is_raw(node):
            found.append(source.at(node, f"{ast.unparse(node)} is for theta.git alone"))
    return found


def objects(source: Source) -> list[str]:
    """Find reads of git objects that bypass ``Repository``, which fetches promised ones."""
    found = []
    for node in source.nodes:
        if not isinstance(node, ast.Attribute | ast.Subscript) or not _is_raw(node.value):
            continue
        if isinstance(node, ast.Subscript) or node.attr in ("get", "revparse_single", "peel"):
            found.append(source.at(node, f"{ast.unparse(node)} does not fetch what is promised"))
    return found


def scratch(source: Source) -> list[str]:
    """Find temporaries of a repository that are not named as those are that the next command removes."""
    found = []
    for node in source.nodes:
        if isinstance(node, ast.BinOp) and ast.unparse(node.left).endswith(".scratch()"):
            name = ast.unparse(node.right)
        elif isinstance(node, ast.Call) and any(ast.unparse(one).endswith(".scratch()") for one in node.args):
            name = ast.unparse(node.args[0])
            if not ast.unparse(node.func).endswith("temporary_directory"):
                continue
        else:
            continue
        if not name.startswith("_fs.own_temporary("):
            found.append(source.at(node, f"{name} stays if theta is killed: use _fs.own_temporary"))
    return found


def _is_raw(node: ast.AST) -> bool:
    """Return whether this is the repository of libgit2, the attribute ``raw`` of another object."""
    return isinstance(node, ast.Attribute) and node.attr == "raw"


_STATE_FILES: Final = re.compile(
    r"\b((MERGE|CHERRY_PICK|REVERT|REBASE|ORIG|FETCH|BISECT)_HEAD|MERGE_(MSG|MODE|RR|AUTOSTASH)|AUTO_MERGE"
    r"|SQUASH_MSG|sequencer|rebase-(merge|apply))\b"
)


def state_files(source: Source) -> list[str]:
    """Find literal names of git's state files outside of docstrings."""
    told = {id(text) for text in _docstrings(source.tree)}
    found = []
    for node in source.nodes:
        text = node.value if isinstance(node, ast.Constant) and id(node) not in told else ""
        spelled = text.decode("latin-1") if isinstance(text, bytes) else str(text)
        if match := _STATE_FILES.search(spelled):
            found.append(source.at(node, f"spells {match[0]}: take it from theta.git.state_files"))
    return found


def _docstrings(tree: ast.Module) -> list[ast.Constant]:
    """Return the strings that are statements: of modules, classes, functions and constants."""
    statements = (node.value for node in ast.walk(tree) if isinstance(node, ast.Expr))
    return [value for value in statements if isinstance(value, ast.Constant)]
