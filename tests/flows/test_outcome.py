"""What became of a stage, by its status file and by how the processes around it ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from components import status_file
from components.status_file import Status
from flows.outcome import StageFailure, failure, outcome
from flows.processes import Ended
from flows.transcript import Transcript

NEVER_BEGAN, KILLED = Status(began=False, exit_status=None), Status(began=True, exit_status=None)
DVC_FAILED = 255  # what DVC exits with, whatever its reason


def of(told: Status, process_status: int, *lines: str) -> StageFailure:
    transcript = Transcript(lambda line: None)
    for line in lines:
        transcript(line)
    return failure("a", told, Ended(process_status, timed_out=False, stopped=False), transcript, None)


def exited(status: int) -> Status:
    return Status(began=True, exit_status=status)


def test_what_was_brought_up_to_date_ran_if_its_command_began() -> None:
    assert outcome("a", exited(0)) == "ran"
    assert outcome("a", NEVER_BEGAN) == "restored"
    assert outcome("data.dvc", NEVER_BEGAN) == "pinned"


@pytest.mark.parametrize(("stage_status", "status"), [(2, 2), (1, 1), (255, 1)])
def test_a_stages_own_fault_is_told_in_its_words(stage_status: int, status: int) -> None:
    fault = of(exited(stage_status), DVC_FAILED, "ValueError: shapes differ", "ERROR: failed to reproduce 'a'")
    assert str(fault) == "stage a: ValueError: shapes differ"
    assert (fault.status, fault.environment) == (status, False)


@pytest.mark.parametrize(
    ("told", "process_status", "message"),
    [
        (KILLED, DVC_FAILED, "was killed by SIGKILL"),  # as DVC has it
        (exited(137), DVC_FAILED, "was killed by SIGKILL"),
        (exited(-11), DVC_FAILED, "was killed by SIGSEGV"),
        (KILLED, 137, "the process that ran it was killed by SIGKILL"),  # DVC
        (KILLED, -9, "the process that ran it was killed by SIGKILL"),  # the supervisor
        (exited(0), -9, "the process that ran it was killed by SIGKILL"),
        (NEVER_BEGAN, 137, "the process that ran it was killed by SIGKILL"),
    ],
)
def test_what_was_killed_is_a_fault_of_the_machine(told: Status, process_status: int, message: str) -> None:
    fault = of(told, process_status, "step 3", "ERROR: failed to reproduce 'a': failed to run: x, exited with -9")
    assert fault.message.startswith(f"{message}; out of memory is the usual reason; lower microbatch_size")
    assert all(key in fault.message for key in ("batch_size", "gradient_checkpointing", "vocabulary_chunk", "dtype"))
    assert (fault.status, fault.environment) == (1, True)


def test_what_was_killed_without_a_word_of_dvc() -> None:
    assert of(KILLED, DVC_FAILED, "step 3").message.startswith("was killed; out of memory is the usual reason")


def test_what_may_not_fail_once_more_is_tried_again_and_is_the_users_to_mend() -> None:
    """A launcher tells of its rank."""
    lines = ("error: a process was killed", "  where:      rank 1 of 2", "ERROR: failed to reproduce 'a'")
    fault = of(Status(began=True, exit_status=2, again=True), DVC_FAILED, *lines)
    assert fault.message == "a process was killed\n  where:      rank 1 of 2"
    assert (fault.status, fault.environment) == (2, True)


def test_what_somebody_ended_is_not_told_of_memory() -> None:
    fault = of(exited(143), DVC_FAILED, "ppo: cycle 1, iteration 2 of 3")
    assert fault.message.startswith("was killed by SIGTERM; somebody ended it") and "memory" not in fault.message
    assert (fault.status, fault.environment) == (1, True)


def test_what_dvc_itself_refuses_is_for_the_user() -> None:
    fault = of(NEVER_BEGAN, DVC_FAILED, "ERROR: failed to reproduce 'a': missing data 'source': data")
    assert fault.message == "failed to reproduce 'a': missing data 'source': data"
    assert (fault.status, fault.environment) == (2, False)


def test_what_dvc_could_not_keep_is_told_in_its_words() -> None:
    lines = "ppo: cycle 1, iteration 3 of 3, reward 0.1", "ERROR: unexpected error - [Errno 30] Read-only file system"
    fault = of(exited(0), DVC_FAILED, *lines)
    assert fault.message == "unexpected error - [Errno 30] Read-only file system"
    assert (fault.status, fault.environment) == (2, False)


def test_a_status_file_tells_whether_a_command_began_and_what_it_ended_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "status"
    status_file.begin()  # nobody wants to know
    monkeypatch.setenv("PROXIMAL_STATUS_FILE", str(file))
    assert status_file.read(file) == NEVER_BEGAN
    status_file.begin()
    assert status_file.read(file) == KILLED
    status_file.end(2)
    assert status_file.read(file) == exited(2)
    status_file.end(2, again=True)
    assert status_file.read(file) == Status(began=True, exit_status=2, again=True)
