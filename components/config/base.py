"""What every family of sections is made of."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

# A method and its section in params.yaml have one name.
Method = Literal["ppo", "grpo", "rloo", "dpo", "online_dpo", "q_learning", "best_of_n"]
METHODS: tuple[Method, ...] = get_args(Method)
POLICY_GRADIENT_METHODS: tuple[Method, ...] = ("ppo", "grpo", "rloo")
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A part of params.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def contradiction(key: str, rule: str, found: object) -> PydanticCustomError:
    """A broken rule between keys.

    Args:
        key: the one that errors name, relative to the section of the validator.
        rule: what was expected there, in words.
    """
    return PydanticCustomError("contradiction", "{rule}; found {found}", {"rule": rule, "key": key, "found": found})
