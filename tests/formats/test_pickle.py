"""The symbolic pickle reader beside Python's own, and gadgets: nothing in a pickle may ever run."""

from __future__ import annotations

import io
import pickle
import pickletools
import random
import sys
import tracemalloc
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.formats.helpers import mutate
from theta.errors import FormatError
from theta.formats import scan_or_opaque
from theta.formats.layout import BytesSource
from theta.formats.pickle import pickle_vm
from theta.formats.pickle.pickle_vm import Call, Dict, Global, RawBytes, read_pickle
from theta.formats.pickle_files.pickle_scan import PickleReport, judge, scan_pickles

PROTOCOLS = range(6)


def plain(value: object, data: bytes) -> object:
    """A symbolic object as the Python object it stands for; ``data`` is the pickle."""
    if isinstance(value, Dict):
        return {plain(key, data): plain(item, data) for key, item in value.pairs}
    if isinstance(value, list):
        return [plain(item, data) for item in value]
    if isinstance(value, tuple):
        return tuple(plain(item, data) for item in value)
    if isinstance(value, RawBytes):
        return data[value.offset : value.offset + value.length]
    if isinstance(value, Call):  # how protocols 0 to 2 write bytes
        assert value.function == Global("_codecs", "encode") and isinstance(value.args, tuple)
        return str(value.args[0]).encode(value.args[1])
    return value


_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\\\r\n\0\x1a"), max_size=9)
    | st.binary(min_size=1, max_size=9)
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text("abcé", max_size=3) | st.integers(), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(_VALUES, st.sampled_from(list(PROTOCOLS)[1:]))
def test_plain_data_reads_as_python_reads_it(value: object, protocol: int) -> None:
    data = pickle.dumps(value, protocol)
    found = read_pickle(BytesSource(data))
    assert plain(found.root, data) == value
    assert found.end == len(data)


def test_every_opcode_of_python_is_known() -> None:
    from theta.formats.pickle.pickle_vm import _HANDLERS

    assert {ord(opcode.code) for opcode in pickletools.opcodes} - set(_HANDLERS) == {ord(".")}


def test_a_pickle_longer_than_a_buffer_is_read() -> None:
    value = [f"name {number}" * 20 for number in range(5_000)] + [bytes(300_000)]
    data = pickle.dumps(value, 4)
    assert plain(read_pickle(BytesSource(data)).root, data) == value


# Gadgets.

_MARKER = "THETA_GADGET_RAN"


class _Gadget:
    def __init__(self, function: Any, *args: object) -> None:
        self._made = (function, args)

    def __reduce__(self) -> Any:
        return self._made


def _global(module: str, name: str, argument: str = f"print('{_MARKER}')") -> dict[int, bytes]:
    """A call of ``module.name`` in each protocol, written by hand: the module need not exist."""
    line = f"{module}\n{name}\n".encode()
    text = argument.encode()
    old = b"c" + line + b"(V" + text + b"\ntR."
    short = b"\x8c" + bytes([len(module)]) + module.encode() + b"\x8c" + bytes([len(name)]) + name.encode()
    body = b"X" + len(text).to_bytes(4, "little") + text + b"\x85R."
    return {
        0: old,
        1: b"(c" + line + b"V" + text + b"\no.",
        2: b"\x80\x02c" + line + body,
        3: b"\x80\x03(V" + text + b"\ni" + line + b".",
        4: b"\x80\x04" + short + b"\x93\x94" + body,
        5: b"\x80\x05" + short + b"\x93" + body[:-2] + b"}\x92.",
    }


_NAMES = [
    ("os", "system"),
    ("posix", "system"),
    ("nt", "system"),
    ("subprocess", "Popen"),
    ("subprocess", "check_output"),
    ("builtins", "eval"),
    ("builtins", "exec"),
    ("__builtin__", "eval"),
    ("builtins", "__import__"),
    ("builtins", "getattr"),
    ("builtins", "open"),
    ("builtins", "compile"),
    ("runpy", "run_path"),
    ("runpy", "_run_code"),
    ("importlib", "import_module"),
    ("pickle", "loads"),
    ("_pickle", "loads"),
    ("marshal", "loads"),
    ("types", "FunctionType"),
    ("ctypes", "CDLL"),
    ("socket", "create_connection"),
    ("webbrowser", "open"),
    ("shutil", "rmtree"),
    ("pty", "spawn"),
    ("timeit", "timeit"),
    ("code", "InteractiveInterpreter"),
    ("pip", "main"),
    ("functools", "partial"),
    ("operator", "methodcaller"),
    ("torch", "load"),
    ("torch.hub", "load"),
    ("torch.utils.cpp_extension", "load_inline"),
    ("torch.jit.frontend", "anything"),
    ("numpy.testing._private.utils", "runstring"),
    ("numpy", "load"),
    ("collections", "OrderedDict.__init__.__globals__"),
    ("torch.storage", "io.open"),
    ("asyncio.unix_events", "_UnixSubprocessTransport._start"),
]
GADGETS = [
    (f"{module}.{name}-{protocol}", data)
    for module, name in _NAMES
    for protocol, data in _global(module, name).items()
]


@pytest.fixture
def nothing_runs() -> Iterator[None]:
    """Fails when anything is imported, executed, unpickled or started while the test body runs."""
    events: list[str] = []
    active = True

    def hook(event: str, args: tuple[object, ...]) -> None:
        watched = (
            "import",
            "exec",
            "compile",
            "os.",
            "subprocess.",
            "socket.",
            "pickle.",
            "marshal.",
            "ctypes.",
        )
        if active and event.startswith(watched) and event != "os.putenv":
            events.append(f"{event} {args!r:.200}")

    harmless = pickle.dumps([1, "text"], 2)
    for data in (harmless, _zipped(harmless)):  # what is imported lazily, codecs too, is imported now
        scan_or_opaque(BytesSource(data))
        scan_pickles(BytesSource(data))
    sys.addaudithook(hook)
    try:
        yield
    finally:
        active = False
    assert events == []


def _zipped(data: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("x/data.pkl", data)
        archive.writestr("x/data/0", bytes(4))
    return buffer.getvalue()


def test_there_are_enough_gadgets() -> None:
    assert len(GADGETS) >= 180


def test_gadgets_are_found_and_never_run(nothing_runs: None, capsys: pytest.CaptureFixture[str]) -> None:
    for name, data in GADGETS:
        report = scan_pickles(BytesSource(data))
        assert report.worst() == "dangerous", name
        module, _, function = name.rpartition("-")[0].partition(".")
        assert f"{module}.{function}" in {f"{f.module}.{f.name}" for f in report.findings}, name
        archive = _zipped(data)
        assert scan_pickles(BytesSource(archive)).worst() == "dangerous", name
        layout, reason = scan_or_opaque(BytesSource(archive))
        assert (layout.format, reason) == ("torch", "")
        assert scan_or_opaque(BytesSource(data))[0].tensors[0].length == len(data)
    assert _MARKER not in capsys.readouterr().out


@pytest.mark.parametrize("data", [data for _, data in GADGETS[::7]], ids=[name for name, _ in GADGETS[::7]])
def test_gadgets_in_odd_places_are_found(data: bytes) -> None:
    assert scan_pickles(BytesSource(_zipped(data, zipfile.ZIP_DEFLATED))).worst() == "dangerous"
    assert scan_pickles(BytesSource(_zipped(_zipped(data)))).worst() == "dangerous"
    assert scan_pickles(BytesSource(pickle.dumps([1], 2) + b"\x80\x02" + data)).worst() == "dangerous"
    cut = scan_pickles(BytesSource(data[:-1] + b"\xff"))
    assert cut.worst() == "dangerous" and cut.broken


def test_pickles_of_real_objects() -> None:
    import collections
    import datetime

    safe = [collections.OrderedDict(a=np.ones(3)), datetime.date(2020, 1, 1), {1, 2}, b"bytes", 1j]
    for protocol in PROTOCOLS:
        report = scan_pickles(BytesSource(pickle.dumps(safe, protocol)))
        assert report.worst() == "safe", report
        evil = scan_pickles(BytesSource(pickle.dumps([safe, _Gadget(eval, "1")], protocol)))
        assert evil.worst() == "dangerous"
        unknown = scan_pickles(BytesSource(pickle.dumps(random.Random(0), protocol)))
        assert unknown.worst() == "unknown"


def test_arrays_of_objects_hold_a_pickle() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([_Gadget(eval, "1")], object), allow_pickle=True)
    assert scan_pickles(BytesSource(buffer.getvalue())).worst() == "dangerous"
    buffer = io.BytesIO()
    np.savez(buffer, a=np.array([_Gadget(eval, "1")], object))
    report = scan_pickles(BytesSource(buffer.getvalue()))
    assert report.worst() == "dangerous" and report.findings[0].where == "a.npy"
    buffer = io.BytesIO()
    np.save(buffer, np.ones(3))
    assert scan_pickles(BytesSource(buffer.getvalue())) == PickleReport((), ())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"cats\nand dogs\nare here",
        b"(a list)",
        b"{}",
        b"\x89PNG\r\n",
        b"import os\n",
        b"I am text\n",
        b"x" * 99,
    ],
)
def test_what_is_no_pickle_has_no_findings(data: bytes) -> None:
    assert scan_pickles(BytesSource(data)) == PickleReport((), ())


def test_a_global_whose_name_is_computed_is_dangerous() -> None:
    data = b"\x80\x04K\x01\x8c\x01a\x93."
    report = scan_pickles(BytesSource(data))
    assert [(f.module, f.verdict) for f in report.findings] == [("?", "dangerous")]
    assert judge("copyreg", "extension 7") != "safe"


def test_a_broken_zip_is_not_called_safe() -> None:
    assert scan_pickles(BytesSource(_zipped(GADGETS[0][1])[:-1])).worst() == "unknown"


@pytest.mark.parametrize(
    "data",
    [
        b"]" * 60_000,
        b"N\x94" * 60_000,
        b"(" * 60_000,
        b"}" * 60_000,
        b")K\x01" + b"\x85" * 60_000,
        b"\x80\x04" + b"\x8c\xff" + b"x" * 255 + b"\x94" + b"h\x00" * 40_000,
        b"".join(b"\x8c\x08%08d\x94" % number for number in range(25_000)),
        b"(" + b"N" * 40_000 + b"2" * 40_000 + b"l" + b"(h" * 12_000,
        b"]" + b"2" * 60_000,
        b"\x8a\xff" * 100 + b"x" * 300,
    ],
    ids=["lists", "memo", "marks", "dicts", "tuples", "gets", "texts", "long list", "dup", "ints"],
)
def test_bombs_are_bounded(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an eighth of the allowance, since tracing memory is slow."""
    monkeypatch.setattr(pickle_vm, "_ALLOWANCE", pickle_vm._ALLOWANCE // 8)
    source = BytesSource(data)
    tracemalloc.start()
    try:
        with pytest.raises(FormatError):
            read_pickle(source)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < len(data) + 8 * 2**20


def run_mutations(count: int, seed: int) -> int:
    """The number of mutated pickles that could still be read; all others were refused in one line."""
    rng = random.Random(seed)
    seeds = [pickle.dumps({"a": [1, 2.5, "x"], "b": (None, True, b"yz")}, number) for number in PROTOCOLS]
    seeds += [data for _, data in GADGETS[:12]]
    read = 0
    for _ in range(count):
        data = mutate(
            rng.choice(seeds), rng, [b"(", b"t", b"R", b"b", b"h\x00", b"q\x01", b"u", b"s", b"0", b"."]
        )
        try:
            read_pickle(BytesSource(data))
            read += 1
        except FormatError as error:
            assert "\n" not in str(error)
        scan_pickles(BytesSource(data))
    return read


def test_mutated_pickles_are_read_or_refused() -> None:
    assert run_mutations(5_000, seed=1) > 300


@pytest.mark.campaign
def test_mutated_pickles_at_length() -> None:
    assert run_mutations(200_000, seed=2) > 10_000
