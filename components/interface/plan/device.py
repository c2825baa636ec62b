"""Where a run is to fit: this machine, a GPU by its name, or one by its memory."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from components.errors import ConfigError

GIB = 2**30


class Speed(NamedTuple):
    """What a device can do at most.

    Args:
        flops: multiplications and additions a second in matrix products of bfloat16 (float16 where it has none).
        bandwidth: bytes a second from its memory.
    """

    flops: float
    bandwidth: float


class Device(NamedTuple):
    """This machine's main memory, or a GPU of so many bytes.

    Args:
        speed: None where it is not known: no times are then given.
    """

    name: str
    memory: int
    is_gpu: bool
    speed: Speed | None = None


# Memory as `nvidia-smi` has it in MiB; dense teraFLOP/s and GB/s of NVIDIA's data sheets.
_GPUS = {
    "t4": (15_360, 65, 320),
    "l4": (23_034, 121, 300),
    "rtx4090": (24_564, 165, 1_008),
    "a100-40gb": (40_960, 312, 1_555),
    "l40s": (46_068, 362, 864),
    "a100-80gb": (81_920, 312, 2_039),
    "h100-80gb": (81_559, 989, 3_350),
    "h200": (143_771, 989, 4_800),
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(gib|gb|mib|mb)?", re.IGNORECASE)
_UNITS = {"gib": GIB, "gb": 10**9, "mib": 2**20, "mb": 10**6}


def device_of(text: str) -> Device:
    """`cpu` for this machine, a GPU's name such as h100-80gb, or its memory: 80, 80GiB, 80GB.

    Raises:
        ConfigError: none of these.
    """
    if text == "cpu":
        return _this_machine()
    if (known := _GPUS.get(text.lower())) is not None:
        mib, teraflops, gigabytes = known
        return Device(text.lower(), mib << 20, is_gpu=True, speed=Speed(teraflops * 1e12, gigabytes * 1e9))
    found = _SIZE.fullmatch(text)
    size = round(float(found[1]) * _UNITS[(found[2] or "gib").lower()]) if found else 0
    if size <= 0:
        expected = f"cpu, a number of GiB, a size such as 80GiB or 80GB, or one of {', '.join(_GPUS)}"
        raise ConfigError("there is no such device", where="--device", expected=expected, found=text)
    return Device(f"a GPU of {size / GIB:.4g} GiB", size, is_gpu=True)


def _this_machine() -> Device:
    """Its main memory, or what a container may take of it."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (found := limit.read_text().strip()).isdigit():
        memory = min(memory, int(found))
    return Device("this machine", memory, is_gpu=False)
