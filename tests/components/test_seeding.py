"""Streams of random numbers, by name."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import torch

from components.seeding import derive_seed, generator


def test_a_seed_is_the_top_63_bits_of_the_names_sha256() -> None:
    expected = int(hashlib.sha256(b"1/ppo/2/responses").hexdigest()[:16], 16) // 2
    assert derive_seed(1, "ppo", 2, "responses") == expected
    assert 0 <= expected < 2**63


def test_streams_differ_by_seed_name_and_number() -> None:
    names = [(1,), (2,), (1, "sft"), (1, "ppo"), (1, "ppo", 1), (1, "ppo", 2), (12, "ppo"), (1, "ppo", 1, 2), (1, 12)]
    assert len({derive_seed(*each) for each in names}) == len(names)


def test_a_stream_starts_over_each_time_it_is_asked_for() -> None:
    first, again, other = (torch.rand(4, generator=generator(1, name)) for name in ("a", "a", "b"))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_seeding_and_config_load_no_heavy_library() -> None:
    command = (
        "import components.seeding, components.config, components.launch, sys; "
        "print([name for name in ('torch', 'transformers', 'mlflow', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
