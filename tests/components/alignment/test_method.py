"""Which rows an iteration works on."""

from __future__ import annotations

import pytest

from components.alignment.method import rows_of_iteration


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
