"""Rounds: people compare the present policy's answers, the scorers learn from that, the policy goes on; and again."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Literal

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner

from components.config import Params, load_params
from components.errors import ConfigError, DataError, ProximalError
from components.interface.adding import add_data
from components.interface.label.labels import Labels
from components.interface.label.pairs import Queue
from components.interface.label.simulated import judge_all, load_annotators
from components.interface.rounds import SFT, Round, write_tables
from components.place import Place
from components.promotion.champions import champion_of
from components.tracking.dvc_files import pinned_data
from components.tracking.history import search_tag
from components.tracking.registry import POLICY_DIGEST, find_version
from flows.environment import set_environment, stage_variables
from flows.graph import Stage, read_stages
from flows.measured_with import MEASURED_WITH, needed_to_measure, submit
from flows.operation import Operations
from flows.outcome import PipelineFailure, came_to, failed
from flows.processes import end_with_worker, processes
from flows.progress import followed
from flows.rlhf import Result, rlhf
from flows.server import orderly
from flows.shown import show_rounds
from flows.stages import SAMPLING, conclude, sample
from flows.versions import new_version
from flows.workspace import whole_repository, workspace

Who = Literal["people", "simulated"]
Source = Literal["champion", "candidate"]


@flow(name="iterate", flow_run_name="{rounds} rounds", task_runner=ThreadPoolTaskRunner(max_workers=1))  # type: ignore[arg-type]
def iterate(
    repository: Path, rounds: int, comparisons: int, annotators: Who, out: Path, source: Source = "champion"
) -> State[Any]:
    """Bring so many rounds to their end, and give them as a list of `Round`; what is done is not done again.

    Args:
        rounds: how many there shall be in all.
        comparisons: how many prompts a round asks; a pair of answers to each, where they differ.
        annotators: people, by `proximal label`: the flow ends and says so where labels are missing. Or the function
            that params name.
        out: what is asked, said and found in each round.
        source: whose answers are compared, and what the cycles go on from: the champion; or, after the first round, the
            candidate of the round before, also where the gate refused it.
    """
    repository, out = repository.resolve(), out.resolve()
    set_environment(repository)
    end_with_worker()
    try:
        with whole_repository(repository):
            every = [Round(out / str(number)) for number in range(1, rounds + 1)]
            for before, each in zip([None, *every], every, strict=False):
                if each.is_done:
                    continue
                begin(each, repository, comparisons, annotators, before if source == "candidate" else None)
                collect(each, repository)
                add(each, repository)
                align(each, repository)
            write_tables(every, out)
            show_rounds(every)
        return came_to(Completed(data=every))
    except (ProximalError, PipelineFailure) as failure:
        return came_to(failed(failure))


def begin(this: Round, repository: Path, comparisons: int, annotators: Who, before: Round | None = None) -> None:
    """Note whom the round asks about and goes on from: the champion, else the SFT policy.

    Args:
        before: the round whose candidate is taken in place of the champion.

    Raises:
        ConfigError: the round has begun otherwise, and its labels are not in yet.
    """
    asked = {"comparisons": comparisons, "annotators": annotators}
    if "present" not in this.known:
        champion = champion_of(_params(repository).promotion.registered_model)
        present = f"{champion.name}@{champion.number}" if champion else SFT
        this.note(present=before.known["model"] if before else present, **asked)
    elif "rows" not in this.known and (begun := {key: this.known[key] for key in asked}) != asked:
        raise ConfigError(
            f"round {this.number} has begun otherwise",
            where=str(this.folder),
            expected=_told(begun),
            found=_told(asked),
            do="go on with those, or name another folder with --out",
        )


def collect(this: Round, repository: Path) -> None:
    """See that each pair of the round's queue, which is sampled where it is not there, has a label.

    Raises:
        ConfigError: there are no simulated annotators.
        DataError: people have not judged all pairs yet.
        PipelineFailure: a stage failed, or the sampling.
    """
    params = _params(repository)
    if not this.queue.exists():
        _sample(this, repository, params)
    queue = Queue.read(this.queue)
    if this.known["annotators"] == "simulated":
        if not this.labels.exists():
            judge_all(queue, load_annotators(params), params.seed, this.labels)
        return
    judged = {row["pair"] for row in Labels(this.labels).all()}
    there = sum(pair.id in judged for pair in queue.pairs)
    if there < len(queue.pairs):
        raise DataError(
            f"round {this.number} waits for people",
            where=str(this.labels),
            expected=f"a label for each of {len(queue.pairs)} pairs; a tie and a skip are labels, too",
            found=f"{there} of them",
            do=f"`proximal label --queue {this.queue} --out {this.labels}`; then the same command goes on",
        )


def _sample(this: Round, repository: Path, params: Params) -> None:
    """Bring up to date what scores answers, in a clone, and sample the queue there."""
    present = this.known["present"]
    with (
        orderly(),
        workspace(repository, name=f"{flow_run.id}-{this.number}", revision="HEAD", overrides={}) as folder,
        processes(str(flow_run.id)),
    ):
        variables, whole = stage_variables(repository), read_stages(folder)
        graph, operations = needed_to_measure(whole), Operations(params, whole, folder, repository)
        last = Stage(SAMPLING, MEASURED_WITH, True, "pairs of the present policy's answers")
        with followed(str(flow_run.id), [*graph, last], repository):
            stages = submit(graph, folder, variables, operations)
            policy = str(Place().sft / "policy") if present == SFT else present
            asked = (policy, this.known["comparisons"], this.number, this.queue)
            stages[SAMPLING] = sample.submit(
                *asked, folder, variables, list(stages.values()), operations.here("evaluation")
            )
            conclude(stages, {})


def add(this: Round, repository: Path) -> None:
    """Put the round's comparisons to the data, as a version of its own; those that are there are not added again.

    Raises:
        ConfigError, DataError, EnvironmentFault: as `proximal data add`.
    """
    if "rows" in this.known:
        return
    to = f"{this.name.replace('/', '-')}.jsonl"
    with new_version(repository, announced=False) as version:  # the round's own run takes them
        added = add_data([str(this.labels)], Place(repository).data, _params(repository), {}, None, [], to)
        fresh = sum(each.rows for each in added)
        version.publish(fresh, f"{fresh} more comparisons of answers of {this.known['present']} ({this.name})")
    digest = Queue.read(this.queue).policies[0].digest
    this.note(rows=fresh + sum(each.known for each in added), digest=digest)


def align(this: Round, repository: Path) -> None:
    """Run the pipeline on the data as it now is: the scorers anew, then cycles from the present policy, and the gate.

    Raises:
        ConfigError: people are asked to approve the candidate.
        PipelineFailure: a stage failed.
    """
    present, revision = this.known["present"], _head(repository)
    state: State[Any] = rlhf(
        repository,
        revision=revision,
        start=None if present == SFT else present,
        tags={"round": this.name},
        return_state=True,
    )
    result = state.result(raise_on_failure=False)
    if not isinstance(result, Result):
        raise result
    verdict = result.ending.verdict
    assert verdict is not None, "it was offered for promotion"
    model = f"{verdict.model}@{verdict.version}"
    if verdict.is_asked:
        raise ConfigError(
            f"round {this.number} waits for people to approve its candidate",
            where=model,
            expected="an answer",
            found=verdict.decision,
            do=f"`proximal approve {verdict.version} --reason ...` or `proximal reject`; then the same command goes on",
        )
    this.note(
        run_id=_run_of(this, result),
        commit=revision,
        data=pinned_data(repository),
        model=model,
        policy=find_version(model).tags[POLICY_DIGEST],
        evaluation=result.evaluation,
        verdict=verdict.sentence(),
        decision=verdict.decision,
    )


def _run_of(this: Round, result: Result) -> str | None:
    """The run that did the round's work: one before this, where a command was killed between that run and its note."""
    if not result.ending.idle:
        return result.ending.run_id
    before = search_tag("round", this.name, " AND attributes.status = 'FINISHED'")
    return next((run.run_id for run in before), None)


def _told(asked: dict[str, Any]) -> str:
    return f"--comparisons {asked['comparisons']} --annotators {asked['annotators']}"


def _params(repository: Path) -> Params:
    return load_params(Place(repository).params)


def _head(repository: Path) -> str:
    command = ["git", "rev-parse", "HEAD"]
    return subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout.strip()
