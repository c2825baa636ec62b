"""Learning rates as worked by hand, and as AdamW is given them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from components.training.schedule import (
    ParameterGroup,
    make_optimizer,
    make_schedule,
    still_until,
    warmup_and_decay,
    warmup_then,
)


def test_warmup_and_decay_as_worked_by_hand() -> None:
    factor = warmup_and_decay(10, 0.4)
    expected = [1 / 4, 2 / 4, 3 / 4, 1, 6 / 6, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0]
    assert [factor(step) for step in range(11)] == pytest.approx(expected)
    assert [warmup_and_decay(4, 0.0)(step) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]
    assert [warmup_and_decay(4, 1.0)(step) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 0.0]
    assert [warmup_and_decay(3, 0.01)(step) for step in range(3)] == [1.0, 1.0, 0.5]  # a part of a step is a step
    assert warmup_and_decay(1, 0.05)(0) == 1.0


def test_warmup_then_constant_or_decay_as_worked_by_hand() -> None:
    assert [warmup_then(3)(step) for step in range(5)] == pytest.approx([1 / 3, 2 / 3, 1, 1, 1])
    assert {warmup_then(0)(step) for step in range(3)} == {1.0}
    assert [warmup_then(2, 5)(step) for step in range(7)] == pytest.approx([1 / 2, 1, 1, 2 / 3, 1 / 3, 0, 0])
    assert [still_until(1, warmup_then(2))(step) for step in range(3)] == [0.0, 1.0, 1.0]


def test_groups_have_rates_of_their_own_and_frozen_parameters_are_let_be() -> None:
    trunk, head = nn.Linear(2, 2), nn.Linear(2, 1)
    trunk.bias.requires_grad_(False)
    groups = {
        "trunk": ParameterGroup(trunk.parameters(), 6.0, still_until(1, warmup_then(2))),
        "head": ParameterGroup(head.parameters(), 12.0, warmup_then(2)),
    }
    optimizer = make_optimizer(groups, weight_decay=0.0)
    assert [group["params"] for group in optimizer.param_groups] == [[trunk.weight], [head.weight, head.bias]]

    def rates(done: int) -> list[list[float]]:
        schedule = make_schedule(optimizer, groups, done)
        found = []
        for _ in range(3):
            found.append([float(group["lr"]) for group in optimizer.param_groups])
            optimizer.step()
            schedule.step()
        return found

    assert rates(0) == [[0.0, 6.0], [6.0, 12.0], [6.0, 12.0]]
    assert rates(1) == [[6.0, 12.0]] * 3  # goes on where it was
    assert not torch.isnan(trunk.weight).any()
