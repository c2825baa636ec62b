"""What a stage printed becomes what a person reads."""

from __future__ import annotations

import pytest

from flows.stages import Transcript


def listen(*lines: str) -> tuple[Transcript, list[str]]:
    shown: list[str] = []
    transcript = Transcript(shown.append)
    for line in lines:
        transcript(line)
    return transcript, shown


def test_the_message_of_a_fault_is_kept_for_the_end() -> None:
    transcript, shown = listen(
        "Running stage 'sft':",
        "> exec python -m components.launch sft",
        "epoch 1  loss 2.31",
        "error: the params are not valid",
        "  where:      params.yaml: sft.epochs",
        "  expected:   a number",
        "an afterthought of another process",
        "ERROR: failed to reproduce 'sft': failed to run: exec python -m components.launch sft, exited with 2",
    )
    assert shown == ["epoch 1  loss 2.31", "an afterthought of another process"]
    failure = transcript.failure("sft", 2)
    assert failure.message == (
        "the params are not valid\n  where:      params.yaml: sft.epochs\n  expected:   a number"
    )
    assert (failure.status, failure.environment) == (2, False)


def test_what_dvc_found_out_is_noted_and_not_shown() -> None:
    transcript, shown = listen("Stage 'a' is cached - skipping run, checking out outputs")
    assert (transcript.restored, transcript.unchanged, shown) == (True, False, [])
    transcript, shown = listen("Stage 'a' didn't change, skipping")
    assert (transcript.restored, transcript.unchanged, shown) == (False, True, [])
    transcript, _ = listen("a run below: sft restored, 2 s")
    assert (transcript.restored, transcript.unchanged) == (False, False)


def test_without_a_message_the_last_line_speaks() -> None:
    transcript, _ = listen("Traceback (most recent call last):", "  File ...", "ValueError: shapes differ")
    failure = transcript.failure("alignment@2", 1)
    assert str(failure) == "stage alignment@2: ValueError: shapes differ"
    assert (failure.status, failure.environment) == (1, False)


@pytest.mark.parametrize("exited_with", ["-9", "137"])
def test_a_killed_stage_is_a_fault_of_the_machine(exited_with: str) -> None:
    transcript, _ = listen(f"ERROR: failed to reproduce 'a': failed to run: x, exited with {exited_with}")
    failure = transcript.failure("a", None)
    assert "SIGKILL" in failure.message
    assert (failure.status, failure.environment) == (1, True)


def test_a_status_that_is_no_signal_is_no_fault_of_the_machine() -> None:
    transcript, _ = listen("ERROR: failed to reproduce 'a': failed to run: x, exited with 255")
    assert not transcript.failure("a", None).environment


def test_what_dvc_itself_refuses_is_for_the_user() -> None:
    transcript, shown = listen("ERROR: failed to reproduce 'a': missing data 'source': data")
    failure = transcript.failure("a", None)
    assert shown == []
    assert failure.message == "failed to reproduce 'a': missing data 'source': data"
    assert (failure.status, failure.environment) == (2, False)


def test_what_dvc_could_not_keep_is_told_in_its_words() -> None:
    transcript, _ = listen(
        "ppo: cycle 1, iteration 3 of 3, reward 0.1", "ERROR: unexpected error - [Errno 30] Read-only file system"
    )
    failure = transcript.failure("alignment@1", 0)
    assert failure.message == "unexpected error - [Errno 30] Read-only file system"
    assert (failure.status, failure.environment) == (2, False)


def test_dvc_found_nothing_to_do() -> None:
    assert listen("Stage 'a' didn't change, skipping")[0].unchanged
    assert listen("'data.dvc' didn't change, skipping")[0].unchanged
    assert not listen("Stage 'a' is cached - skipping run, checking out outputs")[0].unchanged
