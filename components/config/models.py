"""Where models come from, and how text becomes tokens."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from components.config.base import Count, Section, contradiction


class ScratchModel(Section):
    """A small Llama made by config, with a byte-level BPE tokenizer trained on the data."""

    vocabulary_size: Annotated[int, Field(ge=300)]
    hidden_size: Count
    intermediate_size: Count
    layers: Count
    attention_heads: Count

    @model_validator(mode="after")
    def heads_divide_hidden_size(self) -> ScratchModel:
        if self.hidden_size % (2 * self.attention_heads):
            raise contradiction(
                "hidden_size",
                f"a multiple of 2 * attention_heads ({2 * self.attention_heads}): rotary embeddings turn pairs of "
                "numbers in every head",
                self.hidden_size,
            )
        return self


class LanguageModel(Section):
    """Where the policy comes from, and how text becomes tokens."""

    checkpoint: Annotated[str, Field(min_length=1)]  # "scratch", a folder, or a Hugging Face name
    checkpoint_files: Annotated[str, Field(min_length=1)]  # what SFT depends on by content: the folder, or any file
    trust_remote_code: bool
    prompt_template: str
    max_prompt_tokens: Count
    max_response_tokens: Count
    scratch: ScratchModel

    @model_validator(mode="after")
    def template_holds_the_prompt(self) -> LanguageModel:
        if self.prompt_template.count("{prompt}") != 1:
            raise contradiction("prompt_template", "a text with {prompt} exactly once", repr(self.prompt_template))
        return self
