"""The data and its limits."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import Field, model_validator

from components.config.base import Count, Fraction, Section, contradiction


class Data(Section):
    """What the data says beyond its text."""

    columns: dict[str, str]  # where files name a column otherwise: our name to theirs

    # module:function, see components.measuring.rubric; null for data that comes without one
    rubric: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")] | None
    rubric_options: dict[str, Any]  # what else the function takes, by name
    rubric_files: Annotated[str, Field(min_length=1)]  # its file or folder: what changes there measures again

    @model_validator(mode="after")
    def the_rubrics_files_hold_it(self) -> Data:
        """DVC knows the rubric by these files' content: a change elsewhere would not be seen."""
        if self.rubric is None:
            if self.rubric_options:
                raise contradiction(
                    "rubric_options",
                    "none: rubric_options belong to a rubric, and rubric is null",
                    self.rubric_options,
                )
            return self
        module = PurePosixPath(*self.rubric.partition(":")[0].split("."))
        places = (module, module.with_suffix(".py"), *module.parents)
        if PurePosixPath(self.rubric_files) not in places[:-1]:
            raise contradiction(
                "rubric_files",
                f"{module}.py or a folder that it is in, or a change of the rubric would not be seen",
                self.rubric_files,
            )
        return self


class DataValidation(Section):
    """Limits of the raw data, and the shares of its parts; see components.data_validation."""

    max_reject_fraction: Fraction  # of the rows of any one file; above it the stage fails
    max_prompt_characters: Count
    max_response_characters: Count
    max_prompt_tokens: Count | None  # the text's own by the checkpoint's tokenizer, without template; null: no limit
    max_response_tokens: Count | None  # longer rows are rejected; null where checkpoint is scratch: no tokenizer yet
    near_duplicate_similarity: Annotated[float, Field(gt=0.0, le=1.0)]  # Jaccard of word shingles
    max_near_duplicate_fraction: Fraction  # this and the next two only warn
    min_annotator_agreement: Fraction
    max_longer_wins: Annotated[float, Field(ge=0.5, le=1.0)]
    validation_fraction: Annotated[float, Field(gt=0.0, lt=1.0)]  # of prompts that bring no split
    test_fraction: Annotated[float, Field(gt=0.0, lt=1.0)]
    judge_fraction: Annotated[float, Field(gt=0.0, lt=1.0)]  # of comparisons; the reward model has the rest
    heldout_fraction: Annotated[float, Field(gt=0.0, lt=1.0)]  # of the comparisons' prompts
    heldout_pair_fraction: Annotated[float, Field(ge=0.0, lt=1.0)]  # of the comparisons of all other prompts
    min_heldout_prompts: Annotated[int, Field(ge=2)]  # of validation, of test; fewer give no interval to decide by

    @model_validator(mode="after")
    def prompts_remain_for_training(self) -> DataValidation:
        if self.validation_fraction + self.test_fraction >= 1.0:
            raise contradiction(
                "test_fraction",
                f"below 1 - validation_fraction ({1.0 - self.validation_fraction:g}), to leave prompts for training",
                self.test_fraction,
            )
        return self
