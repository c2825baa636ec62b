"""The data and its limits."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from components.config.base import Count, Fraction, Section, contradiction


class Data(Section):
    """What the data says beyond its text."""

    rubric: Literal["helpdesk", "randomwalks", "none"]
    graph_seed: Annotated[int, Field(ge=0)] | None  # of the graph of randomwalks; null for other data

    @model_validator(mode="after")
    def randomwalks_have_a_graph(self) -> Data:
        if (self.rubric == "randomwalks") != (self.graph_seed is not None):
            raise contradiction(
                "graph_seed",
                f"graph_seed names the graph that the rubric randomwalks judges by and belongs to no other rubric; "
                f"found {'null' if self.graph_seed is None else self.graph_seed} with rubric {self.rubric}",
            )
        return self


class DataValidation(Section):
    """Limits of the raw data, and the shares of its parts; see components.data_validation."""

    max_reject_fraction: Fraction  # of the rows of any one file; above it the stage fails
    max_prompt_characters: Count
    max_response_characters: Count
    near_duplicate_similarity: Annotated[float, Field(gt=0.0, le=1.0)]  # Jaccard of word shingles
    max_near_duplicate_fraction: Fraction  # this and the next two only warn
    min_annotator_agreement: Fraction
    max_longer_wins: Annotated[float, Field(ge=0.5, le=1.0)]
    validation_fraction: Annotated[float, Field(gt=0.0, lt=1.0)]  # of prompts that bring no split
    test_fraction: Annotated[float, Field(gt=0.0, lt=1.0)]
    judge_fraction: Annotated[float, Field(gt=0.0, lt=1.0)]  # of comparisons; the reward model has the rest
    heldout_fraction: Annotated[float, Field(gt=0.0, lt=1.0)]  # of the comparisons' prompts
    heldout_pair_fraction: Annotated[float, Field(ge=0.0, lt=1.0)]  # of the comparisons of all other prompts
    min_heldout_prompts: Count  # of validation and of test; fewer give no interval to decide by

    @model_validator(mode="after")
    def prompts_remain_for_training(self) -> DataValidation:
        if self.validation_fraction + self.test_fraction >= 1.0:
            raise contradiction(
                "test_fraction",
                f"validation_fraction {self.validation_fraction} and test_fraction {self.test_fraction} "
                "must leave prompts for training: their sum must be below 1",
            )
        return self
