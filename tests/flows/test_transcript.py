"""What a stage printed becomes what a person reads."""

from __future__ import annotations

from flows.transcript import Transcript


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
    assert transcript.message() == (
        "the params are not valid\n  where:      params.yaml: sft.epochs\n  expected:   a number"
    )


def test_without_a_message_the_last_line_speaks() -> None:
    transcript, _ = listen("Traceback (most recent call last):", "  File ...", "ValueError: shapes differ")
    assert transcript.message() == "ValueError: shapes differ"


def test_dvcs_talk_is_not_shown_and_its_last_words_are_kept() -> None:
    transcript, shown = listen(
        "Stage 'a' is cached - skipping run, checking out outputs",
        "'data.dvc' didn't change, skipping",
        "WARNING: 'artifacts/data_validation/quarantine.jsonl' is empty.",
        "ERROR: failed to reproduce 'a': missing data 'source': data",
    )
    assert shown == []
    assert transcript.last_words_of_dvc() == "failed to reproduce 'a': missing data 'source': data"
