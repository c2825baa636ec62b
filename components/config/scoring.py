"""What a response is worth: one part or several, weighted. The reward model and the judge are each made of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, model_validator

from components.config.base import Count, Positive, Section, contradiction

Weight = Annotated[float, Field(allow_inf_nan=False)]
FunctionName = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")]  # module:function


class Trained(Section):
    """Trained on the comparisons, in standard deviations on samples of the SFT policy."""

    source: Literal["trained"]
    weight: Weight


class Stored(Section):
    """A sequence classifier with one output, with its own tokenizer and chat template; it is not trained.

    Its scores are in standard deviations on samples of the SFT policy, as those of what is trained.
    """

    source: Literal["checkpoint"]
    weight: Weight
    checkpoint: Annotated[str, Field(min_length=1)]  # a folder, or a Hugging Face name
    max_tokens: Count  # of prompt and response together; what is longer loses its oldest turns
    batch_size: Count


class Function(Section):
    """module:function(prompts, responses, **columns) -> a number or None each, as they are."""

    source: Literal["function"]
    weight: Weight
    function: FunctionName
    batch_size: Count  # responses in a call
    timeout_seconds: Positive  # of a call


class Http(Section):
    """An endpoint that is sent {"prompts", "responses", further columns} as JSON and gives {"scores"} back.

    A token for it comes from the environment variable PROXIMAL_REWARD_TOKEN, never from params.
    """

    source: Literal["http"]
    weight: Weight
    url: Annotated[str, Field(pattern=r"^https?://[^\s/@?#]+([/?#]\S*)?$")]  # without a name or a password
    batch_size: Count  # responses in a call
    timeout_seconds: Positive  # of a call
    retries: Annotated[int, Field(ge=0)]


class Rubric(Section):
    """The gold score of data.rubric."""

    source: Literal["rubric"]
    weight: Weight


Part = Annotated[Trained | Stored | Function | Http | Rubric, Field(discriminator="source")]
Parts = Annotated[dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Part], Field(min_length=1)]


def parse_parts(content: Mapping[str, Any]) -> dict[str, Part]:
    """Parts that were stored as plain values. Raises: ValueError, they are none."""
    parts: dict[str, Part] = TypeAdapter(Parts).validate_python(dict(content))
    return parts


class Scoring(Section):
    """The parts of a scorer, by names of one's own. What is None in a part adds nothing there."""

    parts: Parts
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

    @model_validator(mode="after")
    def parts_add_up_to_something(self) -> Scoring:
        if not any(part.weight for part in self.parts.values()):
            raise contradiction("parts", "a weight other than 0 in one of them", "none")
        if len(trained := [name for name, part in self.parts.items() if isinstance(part, Trained)]) > 1:
            raise contradiction("parts", "one trained part at most (several models: members)", ", ".join(trained))
        return self

    @property
    def is_one_trained_model(self) -> bool:
        """Whether nothing but what is trained is asked, as it is."""
        return [type(part) for part in self.parts.values()] == [Trained] and not self.others

    @property
    def others(self) -> list[str]:
        """The names of parts that read texts, or whose weight is not 1."""
        return [name for name, part in self.parts.items() if not isinstance(part, Trained) or part.weight != 1.0]

    @property
    def reads_files(self) -> bool:
        """Whether a part lies in `files`, or may: a checkpoint can be a folder."""
        return any(isinstance(part, (Function, Stored)) for part in self.parts.values())

    @property
    def is_trained(self) -> bool:
        """Whether comparisons train a part of it."""
        return any(isinstance(part, Trained) for part in self.parts.values())
