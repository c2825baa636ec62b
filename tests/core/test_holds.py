"""Each identity that a docstring of core/ claims under `Holds` has a test of that name beside it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import components.core

CORE = Path(components.core.__file__).parent
TESTS = Path(__file__).parent
MODULES = sorted(path.stem for path in CORE.glob("*.py") if path.stem != "__init__")


def claims(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and "Holds:" in (docstring := ast.get_docstring(node) or ""):
            listed = docstring.split("Holds:\n", 1)[1]
            found += re.findall(r"^ {4}([a-z0-9_]+):", listed, flags=re.MULTILINE)
    return found


@pytest.mark.parametrize("module", MODULES)
def test_each_claim_has_its_test(module):
    """The tests of a module may be split by subject: test_losses.py, test_losses_value.py."""
    files = [TESTS / f"test_{module}.py", *TESTS.glob(f"test_{module}_*.py")]
    tests = "".join(file.read_text() for file in files)
    proven = set(re.findall(r"^def test_([a-z0-9_]+)\(", tests, flags=re.MULTILINE))
    assert set(claims((CORE / f"{module}.py").read_text())) - proven == set()


def test_claims_are_found():
    docstring = "One.\n\n    Holds:\n        a_b: c.\n        d_e: long\n            tail.\n    "
    assert claims(f'def f():\n    """{docstring}"""\n') == ["a_b", "d_e"]
    assert len(claims((CORE / "advantages.py").read_text())) > 5


@pytest.mark.parametrize("module", MODULES)
def test_a_public_function_says_what_it_raises_and_its_shapes(module):
    for node in ast.walk(ast.parse((CORE / f"{module}.py").read_text())):
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            docstring = ast.get_docstring(node) or ""
            takes_tensors = any("Tensor" in ast.unparse(a.annotation) for a in node.args.args if a.annotation)
            assert docstring, node.name
            if takes_tensors:
                assert "Shapes:" in docstring, node.name
            if takes_tensors or any(isinstance(part, ast.Raise) for part in ast.walk(node)):
                assert "Raises:" in docstring, node.name
