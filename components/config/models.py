"""Where models come from, and how text becomes tokens."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from components.config.base import Count, Positive, Section, contradiction

# What transformers' apply_chat_template takes beside the template's own variables: set by the code alone.
_NO_OPTIONS = {
    *("add_generation_prompt", "chat_template", "continue_final_message", "conversation", "max_length", "messages"),
    *("padding", "return_assistant_tokens_mask", "return_dict", "return_tensors", "sanitize_control_tokens"),
    *("tokenize", "tokenizer_kwargs", "truncation"),
}


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


class Adapter(Section):
    """Low-rank adapters on one frozen base, in place of training all weights (by peft)."""

    kind: Literal["lora", "rslora", "dora"]
    rank: Count
    alpha: Positive  # the adapter's part is scaled by alpha / rank (rslora: by alpha / sqrt(rank))
    target_modules: Annotated[list[str], Field(min_length=1)] | Literal["all-linear"]  # names of linear layers


class LanguageModel(Section):
    """Where the policy comes from, how its weights are held, and how text becomes tokens."""

    checkpoint: Annotated[str, Field(min_length=1)]  # "scratch", a folder, or a Hugging Face name
    checkpoint_files: Annotated[str, Field(min_length=1)]  # what SFT depends on by content: the folder, or any file
    trust_remote_code: bool
    # How weights are held and passes are made.
    adapter: Adapter | None  # null: all weights are trained
    dtype: Literal["float32", "bfloat16"]  # of weights that are not trained; trained ones are float32
    attn_implementation: Annotated[str, Field(min_length=1)] | None  # null: packed where that is known
    gradient_checkpointing: bool  # activations are computed again in the backward pass instead of kept
    vocabulary_chunk: Count | None  # tokens of the vocabulary that logprobs are computed of at once; null: all of them
    offload_frozen: (
        bool  # models that neither sampling nor updates need leave the GPU meanwhile; on a CPU nothing moves
    )
    # Text.
    prompt_template: str | None  # a text around {prompt}; null where chat_template is given
    chat_template: Annotated[str, Field(min_length=1)] | None  # "tokenizer" for the tokenizer's own, or a Jinja text
    chat_template_options: dict[str, Any]  # what else the template takes, by name
    system_prompt: Annotated[str, Field(min_length=1)] | None  # before conversations that bring none
    max_prompt_tokens: Count
    max_response_tokens: Count
    scratch: ScratchModel

    @model_validator(mode="after")
    def no_kernels_come_from_a_hub(self) -> LanguageModel:
        if "/" in (self.attn_implementation or ""):
            raise contradiction(
                "attn_implementation",
                "a name of transformers' own, such as sdpa: kernels from a hub are code that nobody here has read",
                self.attn_implementation,
            )
        return self

    @model_validator(mode="after")
    def one_template_dresses_prompts(self) -> LanguageModel:
        if (self.prompt_template is None) == (self.chat_template is None):
            raise contradiction(
                "prompt_template",
                "a text with {prompt}, or null and language_model.chat_template instead",
                f"{self.prompt_template!r} beside chat_template {self.chat_template!r}",
            )
        if self.prompt_template is not None and self.prompt_template.count("{prompt}") != 1:
            raise contradiction("prompt_template", "a text with {prompt} exactly once", repr(self.prompt_template))
        return self

    @model_validator(mode="after")
    def only_chats_have_a_system_prompt(self) -> LanguageModel:
        for key in ("system_prompt", "chat_template_options"):
            if self.chat_template is None and (found := getattr(self, key)):
                raise contradiction(key, "nothing: without chat_template there is no place for it", found)
        return self

    @model_validator(mode="after")
    def options_are_the_templates_own(self) -> LanguageModel:
        if found := sorted(_NO_OPTIONS & set(self.chat_template_options)):
            raise contradiction(
                "chat_template_options",
                "names of variables of the template",
                f"{', '.join(found)}, which say how it is applied",
            )
        return self

    @model_validator(mode="after")
    def a_scratch_model_has_no_checkpoint_to_build_on(self) -> LanguageModel:
        if self.checkpoint == "scratch" and self.adapter is not None:
            raise contradiction("adapter", "null: a scratch model has no trained base to adapt", "an adapter")
        if self.checkpoint == "scratch" and self.chat_template == "tokenizer":
            raise contradiction("chat_template", "a Jinja text: a scratch tokenizer brings none", self.chat_template)
        return self
