"""Who sees which row: prompts into train, validation and test; comparisons into reward model and judge.

Every choice is a hash of the seed and the text itself. So a row never wanders when others come or go, and
what must stay together (all rows of a prompt, all dialogues that begin with the same question, all labels of the same
two responses) does.
"""

from __future__ import annotations

import json
from typing import Literal

from components.config import DataValidation
from components.data.rows import BY_REWARD_MODEL
from components.data_validation.conversations import first_question
from components.data_validation.faults import Fault, FaultKind
from components.data_validation.normalisation import fingerprint, prompt_key, visible
from components.data_validation.reading import Row
from components.seeding import derive_seed

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

LEAKED = Fault("prompt", "is a validation or test prompt", FaultKind.LEAKED)
WITHHELD = Fault("prompt", "was drawn for validation or test", FaultKind.LEAKED)


def position_in_unit_interval(seed: int, stream: str, key: str) -> float:
    """A number in [0, 1) that depends on the arguments alone, uniform over keys."""
    return derive_seed(seed, "data_validation", stream, key) / 2**63


def kin_key(row: Row) -> str:
    """What is never parted: a prompt's identity, of a conversation that of the user's first turn.

    A dialogue in training would show how one goes on that is held out.
    """
    return prompt_key(first_question(row))


def split_of(prompt: Row, limits: DataValidation, seed: int) -> Split:
    """The split that a prompt's row names; where the data names none, the one its text is drawn for."""
    if "split" in prompt:
        split: Split = prompt["split"]
        return split
    position = position_in_unit_interval(seed, "split", kin_key(prompt))
    if position < limits.test_fraction:
        return "test"
    return "validation" if position < limits.test_fraction + limits.validation_fraction else "train"


def responses_key(comparison: Row) -> tuple[str, str, str]:
    """The prompt and its two responses as a reader sees them, whichever of them was chosen."""
    first, second = sorted((visible(comparison["chosen"]), visible(comparison["rejected"])))
    return prompt_key(comparison["prompt"]), first, second


def comparison_part(comparison: Row, limits: DataValidation, seed: int) -> ComparisonPart:
    """Whether a comparison trains or tests the reward model or the judge.

    The side depends on prompt and responses, so all labels of one pair are on one side. Being held out
    depends on how the prompt begins alone, so both sides hold out the same prompts. What a run's reward model told
    apart never is the judge's, who would become its echo.
    """
    key = responses_key(comparison)
    is_echo = str(comparison.get("source")).startswith(BY_REWARD_MODEL)
    is_judge = not is_echo and position_in_unit_interval(seed, "judge", json.dumps(key)) < limits.judge_fraction
    is_heldout = position_in_unit_interval(seed, "heldout", kin_key(comparison)) < limits.heldout_fraction
    if is_judge:
        return "comparisons_judge_heldout" if is_heldout else "comparisons_judge"
    return "comparisons_reward_model_heldout" if is_heldout else "comparisons_reward_model"


def hold_out_pairs(comparisons: list[Row], limits: DataValidation, seed: int) -> tuple[list[Row], list[Row]]:
    """Part a scorer's training rows in those that train and pairs held out from prompts that still train.

    All labels of the same responses stay together. A drawn pair trains after all where its prompt has no other one.
    """
    drawn: list[bool] = []
    prompts: list[bytes] = []
    for row in comparisons:
        key = responses_key(row)
        position = position_in_unit_interval(seed, "heldout_pair", json.dumps(key))
        drawn.append(position < limits.heldout_pair_fraction)
        prompts.append(fingerprint(key[0]))
    seen = {prompt for prompt, is_drawn in zip(prompts, drawn, strict=True) if not is_drawn}
    train: list[Row] = []
    heldout: list[Row] = []
    for row, prompt, is_drawn in zip(comparisons, prompts, drawn, strict=True):
        (heldout if is_drawn and prompt in seen else train).append(row)
    return train, heldout
