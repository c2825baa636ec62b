"""Too little memory, in plain words, with the keys of params.yaml that ask for less."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from components.errors import EnvironmentFault

# Said where nobody knows the params any more, of what the kernel has killed.
LESS_MEMORY = (
    "out of memory is the usual reason; lower microbatch_size of the stage's section or measurement.batch_size, or see "
    "language_model.gradient_checkpointing, vocabulary_chunk, dtype and adapter"
)
# By the words of PyTorch for GPUs, of its allocator for CPUs, and of C++: none of them has a class that all share.
_WORDS = ("out of memory", "can't allocate memory", "bad_alloc", "cannot allocate memory")


def likely_reason(signal: str) -> str:
    """Why a process was ended, and what to do, as far as the signal's name tells."""
    # Where memory is short, SIGKILL comes from the kernel; SIGTERM is somebody's.
    return "somebody ended it" if signal == "SIGTERM" else LESS_MEMORY


def is_out_of_memory(fault: BaseException) -> bool:
    """Whether an error says that a device or the machine has no memory left."""
    return isinstance(fault, MemoryError) or any(word in str(fault).lower() for word in _WORDS)


@contextmanager
def memory_faults(stage: str, section: str, params: Any) -> Iterator[None]:
    """Around a stage's work: say what would take less memory.

    Args:
        section: of params, that the stage trains by; without microbatch_size where it trains nothing.
    Raises:
        EnvironmentFault: a device or the machine has no memory left.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as fault:
        if not is_out_of_memory(fault):
            raise
        raise EnvironmentFault(
            "out of memory",
            where=f"stage {stage}",
            expected="room for models, activations and logits",
            found=" ".join(str(fault).split())[:300] or type(fault).__name__,
            do=f"first to last: {'; '.join(_remedies(section, params))}; what was finished before is kept",
        ) from fault


def _remedies(section: str, params: Any) -> Iterator[str]:
    """What takes less memory, the cheapest first; without what is set already."""
    model = params.language_model
    microbatch_size = getattr(getattr(params, section, None), "microbatch_size", None)
    if microbatch_size is not None and microbatch_size > 1:
        yield f"lower {section}.microbatch_size (now {microbatch_size})"
    if params.measurement.batch_size > 1:
        yield f"lower measurement.batch_size (now {params.measurement.batch_size})"
    if microbatch_size is not None and not model.gradient_checkpointing:
        yield "set language_model.gradient_checkpointing: true"
    if model.vocabulary_chunk is None:
        yield "set language_model.vocabulary_chunk, to 4096 say"
    if model.dtype == "float32":
        yield "set language_model.dtype: bfloat16"
    if model.adapter is None and model.checkpoint != "scratch":
        yield "train a language_model.adapter"
    yield "take a smaller model or a larger machine"
