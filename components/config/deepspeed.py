"""The section of an Accelerate config that asks for DeepSpeed's ZeRO."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from components.config.base import Section, contradiction

# Of what `accelerate config` asks beside the stage, the values that are obeyed here, and what does the rest.
_OBEYED: dict[str, tuple[tuple[Any, ...], str]] = {
    "zero_stage": ((2, 3), "2 or 3; of what 0 and 1 do, take MULTI_GPU"),
    "gradient_accumulation_steps": ((1,), "1: the microbatch_size of each section divides its batches"),
    "gradient_clipping": ((None,), "not given: each section has its gradient_clip"),
    "offload_optimizer_device": (("none",), "none, as others were never run here"),
    "offload_param_device": (("none",), "none, as others were never run here"),
    "zero3_init_flag": ((False,), "false: weights are mapped from their file, and shared out one after another"),
    "zero3_save_16bit_model": ((False,), "false: what is stored is whole, in the precision of its training"),
    "deepspeed_multinode_launcher": (("standard",), "standard: processes are started by torchrun's own agent"),
    "deepspeed_config_file": ((None, "none"), "none: its keys are the same as those here, or params have them"),
}


class DeepSpeed(Section):
    """How ZeRO shards what is trained: 2 gradients and optimiser state, 3 the weights as well."""

    zero_stage: Literal[2, 3]

    @model_validator(mode="before")
    @classmethod
    def what_would_not_be_obeyed_is_refused(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        for key, (values, rule) in _OBEYED.items():
            if key in content and not any(content[key] is value or content[key] == value for value in values):
                raise contradiction(key, rule, content[key])
        return {key: value for key, value in content.items() if key == "zero_stage" or key not in _OBEYED}
