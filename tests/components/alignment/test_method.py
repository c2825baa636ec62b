"""Which rows an iteration works on, and where the methods live."""

from __future__ import annotations

import pytest

from components.alignment.method import rows_of_iteration
from components.alignment.methods import room_of
from components.config import METHODS


@pytest.mark.parametrize(("there", "count"), [(7, 3), (7, 7), (4, 10), (1, 2), (12, 8)])
def test_every_row_is_used_once_an_epoch(there: int, count: int) -> None:
    rows = [f"row {number}" for number in range(there)]
    batches = [rows_of_iteration(rows, count, iteration, 3, "test") for iteration in range(there)]
    assert all(len(batch) == count for batch in batches)
    drawn = [row for batch in batches for row in batch]
    epochs = [drawn[start : start + there] for start in range(0, len(drawn), there)]
    assert all(sorted(epoch) == sorted(rows) for epoch in epochs)
    if there == 7:
        assert len({tuple(epoch) for epoch in epochs}) > 1  # shuffled anew


def test_the_rows_of_an_iteration_do_not_depend_on_the_ones_before() -> None:
    rows = list(range(9))
    assert rows_of_iteration(rows, 4, 5, 3, "test") == rows_of_iteration(rows, 4, 5, 3, "test")
    assert rows_of_iteration(rows, 4, 0, 3, "test") != rows_of_iteration(rows, 4, 0, 4, "test")
    assert rows_of_iteration(rows, 4, 0, 3, "test") != rows_of_iteration(rows, 4, 0, 3, "other")


def test_every_method_has_a_room_of_its_own_that_learns_from_what_it_should() -> None:
    rooms = {method: room_of(method) for method in METHODS}
    assert len({room.start for room in rooms.values()}) == len(METHODS)
    of_comparisons = {method for method, room in rooms.items() if room.learns_from == "comparisons"}
    assert of_comparisons == {"dpo", "q_learning"}
