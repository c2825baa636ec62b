from __future__ import annotations

import pytest
import torch

from components.core import checks
from components.errors import TrainingError

INF, NAN = float("inf"), float("nan")


def test_finite_numbers_pass():
    checks.require_finite("loss", torch.tensor(1.5))
    checks.require_finite("scores", torch.tensor([-1e30, 0.0, 3.0]))
    checks.require_finite("nothing", torch.zeros(0))


def test_the_offending_rows_are_named():
    ratio = torch.ones(12, 2)
    ratio[3, 1], ratio[7, 0], ratio[7, 1] = NAN, INF, -INF
    with pytest.raises(TrainingError) as caught:
        checks.require_finite("ratio", ratio)
    assert caught.value.where == "ratio, row(s) 3, 7"
    assert caught.value.found == "3 of 24 numbers are -inf, inf, nan"
    assert caught.value.what == "ratio is not finite"


def test_eight_offending_rows_are_all_named():
    with pytest.raises(TrainingError) as caught:
        checks.require_finite("scores", torch.full((8,), NAN))
    assert caught.value.where == "scores, row(s) 0, 1, 2, 3, 4, 5, 6, 7"


def test_many_offending_rows_are_counted():
    with pytest.raises(TrainingError) as caught:
        checks.require_finite("scores", torch.full((11,), NAN))
    assert caught.value.where == "scores, row(s) 0, 1, 2, 3, 4, 5, 6, 7 and 3 more"


def test_only_selected_numbers_have_to_be_finite():
    values, mask = torch.tensor([[1.0, NAN], [INF, 2.0]]), torch.tensor([[True, False], [False, True]])
    checks.require_finite("values", values, mask)
    with pytest.raises(TrainingError, match=r"row\(s\) 1\b"):
        checks.require_finite("values", values, torch.tensor([[True, False], [True, True]]))
    with pytest.raises(ValueError, match="mask: expected the shape of values"):
        checks.require_finite("values", values, torch.tensor([True, False]))
    with pytest.raises(ValueError, match="mask: expected dtype torch.bool"):
        checks.require_finite("values", values, torch.ones(2, 2))


def test_a_scalar_that_is_not_finite_is_refused():
    with pytest.raises(TrainingError, match="loss is not finite"):
        checks.require_finite("loss", torch.tensor(NAN))


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (
            lambda: checks.require_rank(2, kl=torch.zeros(3)),
            r"kl: expected 2 dimension\(s\), found shape \(3,\)",
        ),
        (
            lambda: checks.require_shape((2,), v=torch.zeros(2, 1)),
            r"v: expected shape \(2,\), found .*\(2, 1\)",
        ),
        (
            lambda: checks.require_same_shape(x=torch.zeros(2), mask=torch.zeros(1)),
            r"mask: expected the shape of x, \(2,\), found shape \(1,\)",
        ),
        (
            lambda: checks.require_bool(mask=torch.ones(2)),
            "mask: expected dtype torch.bool, found torch.float32",
        ),
        (
            lambda: checks.require_float(x=torch.ones(2).long()),
            "x: expected a floating dtype, found torch.int64",
        ),
        (lambda: checks.require_integer(tokens=torch.ones(2)), "tokens: expected an integer dtype, found"),
        (lambda: checks.require_integer(tokens=torch.ones(2).bool()), "tokens: expected an integer dtype"),
        (
            lambda: checks.require(False, "gamma", expected="0 .. 1", found=2),
            "gamma: expected 0 .. 1, found 2",
        ),
    ],
)
def test_a_programmers_mistake_is_a_value_error_that_says_what_expected_and_found(check, message):
    with pytest.raises(ValueError, match=message):
        check()
