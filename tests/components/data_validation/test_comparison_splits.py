from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import pytest

from components.config import DataValidation
from components.data_validation.comparison_keys import position_in_unit_interval
from components.data_validation.splits import comparison_part, hold_out_pairs, split_of

Limits = Callable[..., DataValidation]


def comparison(prompt: str, chosen: str, rejected: str) -> dict[str, str]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def test_a_prompt_keeps_the_split_it_names(limits: Limits) -> None:
    assert split_of({"prompt": "p", "split": "validation"}, limits(), 1) == "validation"


def test_shares_are_as_asked(limits: Limits) -> None:
    """2,000 draws: within four standard errors of the fraction."""
    asked = limits(validation_fraction=0.1, test_fraction=0.2)
    splits = Counter(split_of({"prompt": f"prompt {i}"}, asked, 1) for i in range(2000))
    parts = Counter(comparison_part(comparison(f"prompt {i}", "a", "b"), asked, 1) for i in range(2000))
    judge = parts["comparisons_judge"] + parts["comparisons_judge_heldout"]
    heldout = parts["comparisons_judge_heldout"] + parts["comparisons_reward_model_heldout"]
    for count, fraction in [
        (splits["validation"], 0.1),
        (splits["test"], 0.2),
        (judge, asked.judge_fraction),
        (heldout, asked.heldout_fraction),
    ]:
        assert abs(count / 2000 - fraction) < 4 * math.sqrt(
            fraction * (1 - fraction) / 2000
        )  # reason: four standard errors of a share of 2000


def test_labels_of_the_same_responses_stay_together(limits: Limits) -> None:
    for i in range(50):
        one = comparison(f"prompt {i}", "a", "b")
        other = comparison(f" Prompt  {i}", "b", "a")
        assert comparison_part(one, limits(), 1) == comparison_part(other, limits(), 1)


def test_both_sides_hold_out_the_same_prompts(limits: Limits) -> None:
    sides = set()
    for i in range(50):
        parts = {comparison_part(comparison(f"prompt {i}", f"a{k}", "b"), limits(), 1) for k in range(20)}
        sides |= parts
        assert len({part.endswith("_heldout") for part in parts}) == 1
    assert len(sides) == 4


def test_the_judge_gets_no_label_of_a_reward_model(limits: Limits) -> None:
    """What online DPO left of a run, brought as data: 200 draws, of which the judge would have had some."""
    rows = [comparison(f"prompt {i}", "a", "b") for i in range(200)]
    by_people = Counter(comparison_part(row | {"source": "expert"}, limits(), 1) for row in rows)
    by_reward_model = Counter(comparison_part(row | {"source": "online/reward_model"}, limits(), 1) for row in rows)
    assert by_people["comparisons_judge"] > 20
    assert set(by_reward_model) == {"comparisons_reward_model", "comparisons_reward_model_heldout"}


def test_the_seed_changes_the_draw(limits: Limits) -> None:
    rows = [comparison(f"prompt {i}", "a", "b") for i in range(100)]
    draws = [[comparison_part(row, limits(), seed) for row in rows] for seed in (1, 2, 1)]
    assert draws[0] == draws[2] != draws[1]


def test_the_draw_is_pinned() -> None:
    """A change would move every row. `printf 1/data_validation/heldout/p | sha256sum` gives 135ccb29..."""
    assert position_in_unit_interval(1, "heldout", "p") == pytest.approx(0x135CCB29 / 2**32, abs=2**-32)


def test_held_out_pairs_are_of_prompts_that_still_train(limits: Limits) -> None:
    """2,000 pairs, ten a prompt, two labels each: within four standard errors of the fraction."""
    rows = [comparison(f"prompt {i % 200}", f"a{i}", f"b{i}") for i in range(2000)]
    rows += [comparison(row["prompt"], row["rejected"], row["chosen"]) for row in rows]
    train, heldout = hold_out_pairs(rows, limits(heldout_pair_fraction=0.1), 1)
    assert len(train) + len(heldout) == 4000
    assert abs(len(heldout) / 4000 - 0.1) < 4 * math.sqrt(0.1 * 0.9 / 2000)  # reason: four standard errors
    pairs, heldout_pairs = (
        {tuple(sorted((row["chosen"], row["rejected"]))) for row in part} for part in (train, heldout)
    )
    assert not pairs & heldout_pairs
    assert {row["prompt"] for row in heldout} <= {row["prompt"] for row in train}
    assert hold_out_pairs(rows, limits(heldout_pair_fraction=0.0), 1) == (rows, [])


def test_a_prompt_keeps_its_only_pair(limits: Limits) -> None:
    rows = [comparison(f"prompt {i}", "a", "b") for i in range(50)]
    assert hold_out_pairs(rows, limits(heldout_pair_fraction=0.5), 1) == (rows, [])
