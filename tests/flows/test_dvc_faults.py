"""What DVC cannot keep: its own words are the error, not the last line of a stage that did its work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tiny_project import Tiny


def test_a_cache_that_cannot_be_written_is_told_in_dvcs_words(tiny: Tiny, run_flow: Callable[..., Any]) -> None:
    tiny.stages(a={"prints": ["ppo: cycle 1, iteration 3 of 3, reward +0.1\n"]})
    cache = tiny.folder / ".dvc" / "cache"
    kept = cache.rename(cache.with_name("kept"))
    cache.write_text("in the way")  # a disk that is full or read-only would take the right to mount one
    state = run_flow()
    assert "Not a directory" in state.message or "File exists" in state.message, state.message
    assert str(cache) in state.message and "iteration" not in state.message
    assert state.name == "Refused"
    cache.unlink()
    kept.rename(cache)
    assert run_flow().result().stages["a"] == "ran"
