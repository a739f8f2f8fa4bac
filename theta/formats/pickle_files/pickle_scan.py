"""Finding the globals that the pickles of a file would import and call, without running anything.

Python's unpickler imports and calls while it reads.  So a broken pickle runs up to the error, and the
globals before the error are reported too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from theta.errors import FormatError
from theta.formats.layout import Source
from theta.formats.pickle.numpy_pickle import JoblibMachine
from theta.formats.pickle_files import pickle_parts

Verdict = Literal["safe", "unknown", "dangerous"]

MAX_PICKLES: Final = 1000

# fmt: off
_BUILTINS: Final = frozenset({
    "set", "frozenset", "list", "dict", "tuple", "int", "float", "complex", "bool", "str", "bytes",
    "bytearray", "slice", "range", "object",
})
# fmt: on

# Only globals that make plain data.  A class of a library is "unknown": it may be harmless, but it is code.
_SAFE: Final[dict[str, frozenset[str]]] = {
    "builtins": _BUILTINS,
    "_codecs": frozenset({"encode"}),
    "collections": frozenset({"OrderedDict", "deque", "Counter"}),
    "copyreg": frozenset({"_reconstructor"}),
    "datetime": frozenset({"datetime", "date", "time", "timedelta", "timezone"}),
    "decimal": frozenset({"Decimal"}),
    "fractions": frozenset({"Fraction"}),
    "pathlib": frozenset(
        {"Path", "PosixPath", "PurePath", "PurePosixPath", "WindowsPath", "PureWindowsPath"}
    ),
    "uuid": frozenset({"UUID"}),
    "numpy": frozenset({"ndarray", "dtype"}),
    "numpy.core.multiarray": frozenset({"_reconstruct", "scalar"}),
    "numpy._core.multiarray": frozenset({"_reconstruct", "scalar"}),
    "numpy._core.numeric": frozenset({"_frombuffer"}),
    "numpy.core.numeric": frozenset({"_frombuffer"}),
    "joblib.numpy_pickle": frozenset({"NumpyArrayWrapper"}),
    "torch": frozenset({"Size", "device", "Tensor", "per_tensor_affine", "per_channel_affine"}),
    "torch.storage": frozenset({"UntypedStorage", "TypedStorage"}),
    "torch.serialization": frozenset({"_get_layout"}),
    "torch.jit._pickle": frozenset(
        {"build_intlist", "build_tensorlist", "build_doublelist", "build_boollist", "restore_type_tag"}
    ),
    "torch.nn.parameter": frozenset({"Parameter", "Buffer"}),
    "torch._utils": frozenset(
        {
            "_rebuild_tensor",
            "_rebuild_tensor_v2",
            "_rebuild_tensor_v3",
            "_rebuild_parameter",
            "_rebuild_parameter_with_state",
            "_rebuild_qtensor",
            "_rebuild_sparse_tensor",
        }
    ),
}
_TORCH_DATA: Final = re.compile(
    r"[A-Z][A-Za-z0-9]*Storage|u?int[0-9]+|b?float[0-9]+(?:_\w+)?|complex[0-9]+|bool"
)

# Modules that can run programs or code, access files or the network, or import other modules by name.
# fmt: off
_DANGEROUS_MODULES: Final = frozenset({
    "os", "posix", "nt", "posixpath", "ntpath", "sys", "subprocess", "runpy", "socket", "ssl", "shutil",
    "pty", "importlib", "pickle", "_pickle", "marshal", "types", "code", "codeop", "ctypes", "_ctypes",
    "webbrowser", "urllib", "http", "requests", "httpx", "aiohttp", "ftplib", "smtplib", "telnetlib",
    "asyncio", "multiprocessing", "threading", "_thread", "concurrent", "platform", "timeit",
    "cProfile", "profile", "pdb", "bdb", "trace", "doctest", "functools", "operator", "itertools",
    "inspect", "gc", "signal", "tempfile", "glob", "fileinput", "io", "_io", "imp", "pkgutil",
    "zipimport", "site", "sysconfig", "distutils", "setuptools", "pip", "ensurepip", "venv", "idlelib",
    "lib2to3", "antigravity", "dill", "cloudpickle", "shelve", "commands", "popen2", "test", "unittest",
    "logging", "builtins", "__builtin__", "__builtins__", "joblib", "sqlite3", "mmap", "fcntl",
    "resource", "xmlrpc", "socketserver", "wsgiref", "cgi", "ast", "linecache", "tokenize", "traceback",
    "weakref", "atexit",
})
# fmt: on
# fmt: off
_DANGEROUS_NAMES: Final = frozenset({
    "eval", "exec", "execfile", "compile", "open", "__import__", "import_module", "getattr", "setattr",
    "delattr", "system", "popen", "Popen", "run", "call", "check_call", "check_output", "spawn", "fork",
    "execv", "execve", "load", "loads", "load_library", "loadtxt", "fromfile", "runstring", "partial",
    "methodcaller", "attrgetter", "breakpoint", "input", "globals", "locals", "vars", "__reduce__",
    "__getattribute__", "__subclasses__", "__globals__", "__builtins__", "__class__", "__dict__",
    "__init__", "__call__", "f_globals",
})
# fmt: on
_DANGEROUS_PREFIXES: Final = (
    "torch.hub",
    "torch.jit",
    "torch.utils.cpp_extension",
    "torch._inductor",
    "torch._dynamo",
    "torch.distributed.rpc",
    "torch.package",
    "torch.multiprocessing",
    "torch.utils.data",
    "numpy.testing",
    "numpy.f2py",
    "numpy.distutils",
)
_NAME_RE: Final = re.compile(r"[A-Za-z_?][\w.]*")


@dataclass(frozen=True, slots=True)
class Finding:
    """A global that the pickle ``where`` ('' for the file itself) would import."""

    where: str
    module: str
    name: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class PickleReport:
    """All globals in the pickles of a file, and one line for each pickle that could not be read."""

    findings: tuple[Finding, ...]
    broken: tuple[str, ...]

    def worst(self) -> Verdict:
        """Return the worst verdict; a broken pickle is at least ``unknown``."""
        found = {finding.verdict for finding in self.findings}
        if "dangerous" in found:
            return "dangerous"
        return "unknown" if "unknown" in found or self.broken else "safe"


def scan_pickles(source: Source) -> PickleReport:
    """Find the globals in all pickles of ``source``, including those in archives and arrays of objects."""
    findings: dict[Finding, None] = {}
    broken: list[str] = []
    try:
        for where, part, start in pickle_parts.parts(source):
            message = _scan_run(part, start, where, findings)
            if message:
                broken.append(f"{where}: {message}" if where else message)
    except FormatError as error:
        broken.append(str(error))
    return PickleReport(tuple(findings), tuple(broken))


def judge(module: str, name: str) -> Verdict:
    """Return the verdict about a global."""
    module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
    if name in _SAFE.get(module, ()) or (module == "torch" and _TORCH_DATA.fullmatch(name)):
        return "safe"
    if module.startswith("torch.") and name.endswith("Storage") and module in ("torch.cuda", "torch.storage"):
        return "safe"
    parts = name.split(".")
    if module.split(".")[0] in _DANGEROUS_MODULES or any(part in _DANGEROUS_NAMES for part in parts):
        return "dangerous"
    if "?" in (module, name) or module.startswith(_DANGEROUS_PREFIXES):
        return "dangerous"
    # A dotted name accesses attributes, and so modules that its module imported.
    if len(parts) > 1 and any(part in _DANGEROUS_MODULES for part in parts):
        return "dangerous"
    return "unknown"


def _scan_run(source: Source, start: int, where: str, findings: dict[Finding, None]) -> str:
    """Read consecutive pickles from ``start``; return why one could not be read, or ''."""
    for number in range(MAX_PICKLES):
        marked = pickle_parts.has_protocol(source, start)
        if number and not marked:
            return ""
        machine = _WatchedMachine(source, start, source.size)
        message = ""
        try:
            machine.run()
        except FormatError as error:
            message = str(error)
        if message and not machine.called and not (marked and _may_go_on(machine, message)):
            return ""  # not a pickle at all
        for found in machine.globals:
            findings[Finding(where, found.module, found.name, judge(found.module, found.name))] = None
        if message:
            return message
        start = machine.position
    return f"more than {MAX_PICKLES} pickles"


def _may_go_on(machine: JoblibMachine, message: str) -> bool:
    """Return whether Python's unpickler might continue after our error, or has imported something.

    Numbers in binary files often look like the start of a pickle: 640 is ``80 02 00 00``.
    """
    return bool(machine.globals) or "unknown opcode" not in message


class _WatchedMachine(JoblibMachine):
    """Records whether anything with a plausible name would have been called."""

    called = False

    def _call(self) -> None:
        super()._call()
        self.called = self.called or bool(self.globals)

    def _build(self) -> None:
        super()._build()
        self.called = self.called or bool(self.globals)

    def _nested(self) -> None:
        self.called = True
        super()._nested()

    def _instance(self) -> None:
        super()._instance()
        self.called = True

    def _object(self) -> None:
        super()._object()
        self.called = self.called or bool(self.globals)

    def _global(self, module: object, name: object) -> None:
        # A text file may start with the letter of an opcode.
        if isinstance(module, str) and isinstance(name, str) and not self._is_name(module, name):
            raise FormatError("pickle: a global that is no name")
        super()._global(module, name)

    @staticmethod
    def _is_name(module: str, name: str) -> bool:
        return module == "copyreg" or bool(_NAME_RE.fullmatch(module) and _NAME_RE.fullmatch(name))
