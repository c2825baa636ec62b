"""A house rule: no test compares with a tolerance above 1e-3 without a `# reason:`.

A tolerance of 1e6 once let wrong expectations pass in a well-known library. The statement that compares may
be wrapped: the reason counts anywhere on its lines.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
KEYWORDS = {"rtol", "atol", "abs", "rel", "rel_tol", "abs_tol", "delta"}
# The position from which a bare argument is a tolerance.
POSITIONAL = {"approx": 1, "isclose": 2, "allclose": 2, "assert_allclose": 2}


def loose_tolerances(source: str) -> list[str]:
    """Line and expression of each tolerance above 1e-3, or no plain number, in a statement without reason."""
    lines, found = source.splitlines(), []
    for statement in ast.walk(ast.parse(source)):
        if isinstance(statement, ast.Assert | ast.Expr | ast.Assign | ast.Return | ast.AnnAssign):
            reasoned = any("# reason:" in line for line in lines[statement.lineno - 1 : statement.end_lineno])
            tolerances = [tolerance for node in ast.walk(statement) for tolerance in _tolerances_of(node)]
            if not reasoned:
                found += [f"{part.lineno}: {ast.unparse(part)}" for part in tolerances if _too_large(part)]
    return found


def _tolerances_of(node: ast.AST) -> list[ast.expr]:
    if isinstance(node, ast.Call):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        start = POSITIONAL.get(called, len(node.args))
        return [*node.args[start:], *(key.value for key in node.keywords if key.arg in KEYWORDS)]
    compares_a_distance = (
        isinstance(node, ast.Compare)
        and isinstance(node.left, ast.Call)
        and "abs" in (getattr(node.left.func, "id", ""), getattr(node.left.func, "attr", ""))
        and isinstance(node.ops[0], ast.Lt | ast.LtE)
    )
    return [node.comparators[0]] if compares_a_distance else []


def _too_large(tolerance: ast.expr) -> bool:
    """A name or a call can hide anything; arithmetic of plain numbers cannot."""
    plain = (ast.Constant, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop)
    if not all(isinstance(node, plain) for node in ast.walk(tolerance)):
        return True
    number = eval(compile(ast.Expression(tolerance), "tolerance", "eval"))
    return number is not None and not abs(number) <= 1e-3


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: path.relative_to(TESTS).as_posix())
def test_tolerances_are_small_or_reasoned(path):
    assert loose_tolerances(path.read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        "assert_close(x, y, rtol=1e6, atol=0)",
        "assert x == pytest.approx(y, abs=0.01)",
        "assert x == approx(y, 0.5)",
        "np.testing.assert_allclose(x, y, 0.1)",
        "assert_close(x, y, rtol=0, atol=TOLERANCE)",
        "assert_close(x, y, rtol=float('inf'), atol=0)",
        "assert abs(x - y) < 0.05",
        "assert (x - y).abs() <= 0.05",
        "assert math.isclose(x, y, rel_tol=0.2)",
        "assert x == approx(\n    y,\n    rel=0.5,\n)",
    ],
)
def test_a_loose_tolerance_is_seen(line):
    assert len(loose_tolerances(line)) == 1
    assert loose_tolerances(f"{line}  # reason: 400 samples, three standard errors") == []


@pytest.mark.parametrize(
    "line",
    [
        "assert_close(x, y, rtol=1e-3, atol=0)",
        "assert x == approx(y, abs=1e-6)",
        "assert abs(x - y) < 1e-4",
        "assert abs(x - y) < 2**-32",
        "assert abs(x - y) > 0.5",
        "assert_close(x, y)",
    ],
)
def test_a_tight_tolerance_passes(line):
    assert loose_tolerances(line) == []
