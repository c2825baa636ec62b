"""What a response is worth: one part or several, weighted. The reward model and the judge are each made of them."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import Field, model_validator

from components.config.base import Count, Positive, Section, contradiction

Weight = Annotated[float, Field(allow_inf_nan=False)]


class Trained(Section):
    """Trained on the comparisons, in standard deviations on samples of the SFT policy."""

    source: Literal["trained"]
    weight: Weight


class Stored(Section):
    """A sequence classifier with one output, with its own tokenizer and chat template; it is not trained."""

    source: Literal["checkpoint"]
    weight: Weight
    checkpoint: Annotated[str, Field(min_length=1)]  # a folder, or a Hugging Face name
    max_tokens: Count  # of prompt and response together; what is longer loses its oldest turns
    batch_size: Count


class Function(Section):
    """module:function(prompts, responses, **columns) -> a number or None each."""

    source: Literal["function"]
    weight: Weight
    function: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")]
    timeout_seconds: Positive


class Http(Section):
    """An endpoint that is sent {"prompts", "responses", further columns} as JSON and gives {"scores"} back."""

    source: Literal["http"]
    weight: Weight
    url: Annotated[str, Field(pattern=r"^https?://\S+$")]
    timeout_seconds: Positive
    retries: Annotated[int, Field(ge=0)]


class Rubric(Section):
    """The gold score of data.rubric."""

    source: Literal["rubric"]
    weight: Weight


Part = Annotated[Trained | Stored | Function | Http | Rubric, Field(discriminator="source")]


class Scoring(Section):
    """The parts of a scorer, by names of one's own. What is None in a part adds nothing there."""

    parts: Annotated[dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Part], Field(min_length=1)]
    files: Annotated[str, Field(min_length=1)]  # holds the functions' files and the checkpoint's folder; else any file

    @model_validator(mode="after")
    def the_files_hold_the_functions(self) -> Scoring:
        """DVC knows them by these files' content: a change elsewhere would not be seen."""
        for name, part in self.parts.items():
            if not isinstance(part, Function):
                continue
            module = PurePosixPath(*part.function.partition(":")[0].split("."))
            if PurePosixPath(self.files) not in (module, module.with_suffix(".py"), *module.parents[:-1]):
                raise contradiction(
                    "files",
                    f"{module}.py or a folder that it is in, or a change of the function of parts.{name} would not be "
                    "seen",
                    self.files,
                )
        return self

    @property
    def is_trained(self) -> bool:
        """Whether comparisons train a part of it."""
        return any(isinstance(part, Trained) for part in self.parts.values())
