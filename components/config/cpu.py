"""What this machine says of its CPU."""

from __future__ import annotations

import re
from pathlib import Path

_ABOUT_THE_CPU = Path("/proc/cpuinfo")


def bfloat16_instructions() -> list[str]:
    """The instructions, by their flags, with which this CPU multiplies in bfloat16; none where it does not say."""
    return sorted(set(re.findall(r"\b(?:amx|avx512)_bf16\b", _about())))


def model_name() -> str | None:
    """What the CPU is called; None where it does not say."""
    named = re.search(r"^model name\s*: (.*)$", _about(), re.MULTILINE)
    return named[1] if named else None


def _about() -> str:
    return _ABOUT_THE_CPU.read_text() if _ABOUT_THE_CPU.exists() else ""
