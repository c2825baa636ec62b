from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from components.core.pairs import best_and_worst

SCORES = st.lists(st.integers(-3, 3).map(float), min_size=12, max_size=12)
SIZES = st.sampled_from((2, 3, 4, 6))


def test_pairs_by_hand():
    """Prompt 0: 5 beats -1; prompt 1: all alike; prompt 2: the first 2 beats the first 0."""
    scores = torch.tensor([1.0, 5.0, -1.0, 4.0, 4.0, 4.0, 2.0, 0.0, 2.0, 0.0, 1.0, 0.0])
    best, worst, is_tie = best_and_worst(scores[:6], 3)
    assert (best.tolist(), worst.tolist(), is_tie.tolist()) == ([1, 3], [2, 3], [False, True])
    best, worst, is_tie = best_and_worst(scores[6:], 6)
    assert (best.tolist(), worst.tolist(), is_tie.tolist()) == ([0], [1], [False])
    best, worst, is_tie = best_and_worst(scores[6:], 2)
    assert (best.tolist(), worst.tolist(), is_tie.tolist()) == ([0, 2, 4], [1, 3, 5], [False, False, False])
    best, worst, is_tie = best_and_worst(torch.tensor([0.25, 0.75]), 2)
    assert (best.tolist(), worst.tolist(), is_tie.tolist()) == ([1], [0], [False])


def test_the_smallest_difference_is_none_of_equals():
    scores = torch.tensor([1.0, 1.0 + torch.finfo(torch.float32).eps])
    assert best_and_worst(scores, 2).is_tie.tolist() == [False]


@given(scores=SCORES, size=SIZES)
def test_the_best_is_not_below_the_worst(scores, size):
    best, worst, is_tie = best_and_worst(torch.tensor(scores), size)
    for group, (first, last, tie) in enumerate(zip(best.tolist(), worst.tolist(), is_tie.tolist(), strict=True)):
        members = scores[group * size : (group + 1) * size]
        assert scores[first] == max(members) and scores[last] == min(members)
        assert tie == (len(set(members)) == 1)


@given(scores=SCORES, size=SIZES)
def test_a_pair_stays_within_its_group(scores, size):
    found = best_and_worst(torch.tensor(scores), size)
    for group in range(12 // size):
        first = group * size
        alone = best_and_worst(torch.tensor(scores[first : first + size]), size)
        assert int(found.best[group]) == first + int(alone.best) and int(found.worst[group]) == first + int(alone.worst)


@pytest.mark.parametrize(("size", "count"), [(1, 4), (0, 4), (3, 4)])
def test_what_makes_no_groups_is_refused(size, count):
    with pytest.raises(ValueError, match="expected"):
        best_and_worst(torch.zeros(count), size)
