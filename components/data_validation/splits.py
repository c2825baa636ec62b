"""Who sees which row: prompts into train, validation and test; comparisons into reward model and judge.

Every choice is a hash of the seed and the text itself. So a row never wanders when others come or go, and
what must stay together (all rows of a prompt, all dialogues that begin with the same question, all labels of the same
two responses) does.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from typing import Literal

from components.config import DataValidation
from components.data.rows import BY_REWARD_MODEL
from components.data_validation.comparison_keys import Keys, key_of, position_in_unit_interval
from components.data_validation.conversations import first_question
from components.data_validation.faults import Fault, FaultKind
from components.data_validation.normalisation import prompt_key
from components.data_validation.reading import Row

Split = Literal["train", "validation", "test"]
ComparisonPart = Literal[
    "comparisons_reward_model",
    "comparisons_reward_model_heldout",
    "comparisons_judge",
    "comparisons_judge_heldout",
]
PARTS = (
    "prompts_train",
    "prompts_validation",
    "prompts_test",
    "demonstrations",
    "comparisons_reward_model",
    "comparisons_reward_model_heldout",
    "comparisons_reward_model_heldout_pairs",
    "comparisons_judge",
    "comparisons_judge_heldout",
    "comparisons_judge_heldout_pairs",
)
# Where no prompt has two pairs, no pair can be held out from a prompt that is trained on.
MAY_BE_EMPTY = ("comparisons_reward_model_heldout_pairs", "comparisons_judge_heldout_pairs")

HELD_OUT: tuple[Split, ...] = ("validation", "test")
OF_HELD_OUT = Fault("split", "is validation or test", FaultKind.LEAKED)
LEAKED = Fault("prompt", "is a validation or test prompt", FaultKind.LEAKED)
WITHHELD = Fault("prompt", "was drawn for validation or test", FaultKind.LEAKED)


def kin_key(row: Row) -> str:
    """What is never parted: a prompt's identity, of a conversation that of the user's first turn.

    A dialogue in training would show how one goes on that is held out.
    """
    return _kin(first_question(row))


@lru_cache(maxsize=1 << 18)
def _kin(question: str) -> str:
    """Several checks ask for it, of the same texts."""
    return prompt_key(question)


def split_of(prompt: Row, limits: DataValidation, seed: int, drawn: Collection[Split] = HELD_OUT) -> Split:
    """The split that a prompt's row names; where it names train or none, the one its text is drawn for.

    Args:
        drawn: the splits that are drawn for; those that the data names are none.
    """
    named: Split = prompt.get("split", "train")
    if named != "train" or not drawn:
        return named
    position = position_in_unit_interval(seed, "split", kin_key(prompt))
    if position < limits.test_fraction:
        return "test" if "test" in drawn else "train"
    if position < limits.test_fraction + limits.validation_fraction:
        return "validation" if "validation" in drawn else "train"
    return "train"


def comparison_part(comparison: Row, limits: DataValidation, seed: int, keys: Keys | None = None) -> ComparisonPart:
    """Whether a comparison trains or tests the reward model or the judge.

    The side depends on prompt and responses, so all labels of one pair are on one side. Being held out
    depends on how the prompt begins alone, so both sides hold out the same prompts. What a run's reward model told
    apart never is the judge's, who would become its echo.
    """
    key = keys(comparison) if keys else key_of(comparison, seed)
    is_echo = str(comparison.get("source")).startswith(BY_REWARD_MODEL)
    is_judge = not is_echo and key.judge < limits.judge_fraction
    is_heldout = position_in_unit_interval(seed, "heldout", kin_key(comparison)) < limits.heldout_fraction
    if is_judge:
        return "comparisons_judge_heldout" if is_heldout else "comparisons_judge"
    return "comparisons_reward_model_heldout" if is_heldout else "comparisons_reward_model"


def hold_out_pairs(
    comparisons: list[Row], limits: DataValidation, seed: int, keys: Keys | None = None
) -> tuple[list[Row], list[Row]]:
    """Part a scorer's training rows in those that train and pairs held out from prompts that still train.

    All labels of the same responses stay together. A drawn pair trains after all where its prompt has no other one.
    """
    drawn: list[bool] = []
    prompts: list[bytes] = []
    for row in comparisons:
        key = keys(row) if keys else key_of(row, seed)
        drawn.append(key.heldout_pair < limits.heldout_pair_fraction)
        prompts.append(key.prompt)
    seen = {prompt for prompt, is_drawn in zip(prompts, drawn, strict=True) if not is_drawn}
    train: list[Row] = []
    heldout: list[Row] = []
    for row, prompt, is_drawn in zip(comparisons, prompts, drawn, strict=True):
        (heldout if is_drawn and prompt in seen else train).append(row)
    return train, heldout
