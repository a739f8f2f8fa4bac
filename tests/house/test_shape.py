"""Docstrings, annotations, and ceilings on the length of files and functions."""

import ast
import re

import pytest

from tests.house import shape
from tests.house.source import OURS, PRODUCT, snippet, sources


def test_every_module_says_what_it_is() -> None:
    assert [finding for source in sources(*OURS) for finding in shape.undocumented(source)] == []


def test_files_and_functions_are_short() -> None:
    assert [finding for source in sources(*OURS) for finding in shape.too_long(source)] == []


def test_public_names_are_documented_and_annotated() -> None:
    assert [finding for source in sources(*PRODUCT) for finding in shape.unfinished(source)] == []


@pytest.mark.parametrize(
    ("text", "complaints"),
    [
        ("def f() -> None:\n    pass", 1),
        ("def f():\n    'Doc.'", 1),
        ("def f(a, *b, c, **d) -> None:\n    'Doc.'", 1),
        ("def f(a):\n    pass", 2),
        ("async def f():\n    'Doc.'", 1),
        ("class C:\n    pass", 1),
        ("class C:\n    'Doc.'\n    def f(self) -> None:\n        pass", 1),
        ("if True:\n    def f() -> None:\n        pass", 1),
        ("def f(a: int) -> None:\n    'Doc.'\n    def inner(b): pass", 0),
        ("def _f(a): pass\nclass _C:\n    def f(self): pass", 0),
        ("class C:\n    'Doc.'\n    def __len__(self): return 0", 0),
    ],
)
def test_an_unfinished_name_is_seen(text: str, complaints: int) -> None:
    assert len(shape.unfinished(snippet(text))) == complaints


def test_a_module_without_docstring_is_seen() -> None:
    assert shape.undocumented(snippet("import os"))
    assert shape.undocumented(snippet(""))
    assert not shape.undocumented(snippet("'Doc.'"))


def test_length_is_seen() -> None:
    assert not shape.too_long(snippet("x = 1\n" * shape.FILE_CEILING))
    assert shape.too_long(snippet("x = 1\n" * (shape.FILE_CEILING + 1)))
    for module in ("theta.cli.log", "theta.cli"):
        assert not shape.too_long(snippet("x = 1\n" * shape.CLI_CEILING, module))
        assert shape.too_long(snippet("x = 1\n" * (shape.CLI_CEILING + 1), module))
    assert not shape.too_long(snippet("x = 1\n" * (shape.CLI_CEILING + 1), "theta.cli.demo"))
    body = "    x = 1\n"
    assert not shape.too_long(snippet("def f():\n" + body * (shape.FUNCTION_CEILING - 1)))
    assert shape.too_long(snippet("def f():\n" + body * shape.FUNCTION_CEILING))


def test_groups_are_not_possessive() -> None:
    """Python up to 3.11.4, which Debian 12 has, matches their repetitions wrongly (gh-106052)."""
    possessive = re.compile(r"\)(?:[*+?]|\{[0-9]*,?[0-9]*\})\+")
    strings = [
        (source.module, node.value if isinstance(node.value, str) else node.value.decode("latin-1"))
        for source in sources(*PRODUCT)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes))
    ]
    assert possessive.search("(?:a|b)*+") and possessive.search("(a){0,63}+")
    assert [found for found in strings if possessive.search(found[1])] == []


def test_imports_inside_functions_become_fewer() -> None:
    found = [finding for source in sources(*PRODUCT) for finding in shape.inner_imports(source)]
    assert len(found) <= shape.INNER_IMPORTS, "import at the top, or with theta.lazy.Module"
    assert len(found) > shape.INNER_IMPORTS - 10, "fewer than that: lower INNER_IMPORTS"


def test_an_import_inside_a_function_is_seen() -> None:
    assert shape.inner_imports(snippet("import os\nif True:\n    import re")) == []
    assert len(shape.inner_imports(snippet("def f():\n    import os\n    from re import sub"))) == 2
    nested = "class C:\n    def f(self):\n        def g():\n            import os\n"
    assert len(shape.inner_imports(snippet(nested))) == 1


def test_no_two_types_have_one_name() -> None:
    assert shape.namesakes(sources(*PRODUCT)) == []


def test_types_of_one_name_are_seen() -> None:
    one, other = snippet("class Tensor: pass", "theta.store.a"), snippet("class Tensor: pass", "theta.git.b")
    alias = snippet("Tensor = tuple[str, int]", "theta.formats.c")
    told = snippet("class Tensor:  # as a.Tensor, without values\n    pass", "theta.git.d")
    assert len(shape.namesakes([one, other])) == len(shape.namesakes([one, alias])) == 2
    assert shape.namesakes([one, told]) == shape.namesakes([alias, alias]) == []
    assert shape.namesakes([snippet("class _Own: pass", "x"), snippet("class _Own: pass", "y")]) == []
