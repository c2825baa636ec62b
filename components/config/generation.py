"""Which engine samples the rollouts that PPO, GRPO, RLOO and online DPO learn from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from components.config.base import Count, Positive, Section, contradiction

# Options of `vllm serve` that are the code's to set: by them it is asked, and its logprobs are those that are recorded.
_OURS = {
    *("--model", "--served-model-name", "--host", "--port", "--uds", "--dtype", "--max-model-len", "--api-key"),
    *("--generation-config", "--override-generation-config", "--logprobs-mode", "--enable-lora", "--max-lora-rank"),
    *("--enable-sleep-mode", "--tokenizer", "--quantization"),
}
_ENDPOINT = r"^https?://[^\s/@?#]+$"  # without a name or a password, and without a path


class Own(Section):
    """Our own engine, in the process that trains: exact, and the same bytes again."""

    engine: Literal["own"]


class Vllm(Section):
    """A vLLM server, asked over HTTP; it has the policy's weights after every update."""

    sleeps: bool  # it gives the GPU's memory back during updates
    requests_at_once: Count
    timeout_seconds: Positive  # of a request
    max_probe_gap_nats_per_token: Positive  # after each update of its weights: from our logprobs of some prompts
    max_mismatch_kl_nats_per_token: Positive  # of an iteration's rollouts, from our logprobs to its own
    importance_weight_cap: Positive | None  # losses are weighted by our probability / its own, up to this; null: by 1


class VllmStarted(Vllm):
    """One that is started with the first iteration of a cycle, and ends with the cycle."""

    engine: Literal["vllm"]
    command: Annotated[list[str], Field(min_length=1)]  # what `serve FOLDER` and its options are added to
    arguments: list[str]  # further options of `vllm serve`
    environment: dict[str, str]  # further variables
    dtype: Literal["float32", "bfloat16", "float16"]  # of its weights and passes
    start_timeout_seconds: Positive

    @model_validator(mode="after")
    def options_are_not_the_codes_own(self) -> VllmStarted:
        if found := sorted(_OURS & {argument.partition("=")[0] for argument in self.arguments}):
            raise contradiction("arguments", "options that the code does not set itself", ", ".join(found))
        return self


class VllmAtUrl(Vllm):
    """One that is there already, for this run alone: it takes the policy's weights from a folder that both see."""

    engine: Literal["vllm_at_url"]
    url: Annotated[str, Field(pattern=_ENDPOINT)]


Generation = Annotated[Own | VllmStarted | VllmAtUrl, Field(discriminator="engine")]
