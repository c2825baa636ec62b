"""Values looked for by Optuna: `python -m examples.optuna_sweep --study lr --trials 12`, again to go on.

Copy it and change `suggest`. Each trial is a run of the last commit in a clone of its own, and stages that its values
do not reach come from DVC's cache. In MLflow all trials lie below one run, named as the study.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import click
import optuna
from filelock import FileLock, Timeout
from optuna.trial import TrialState

from components.config import load_params
from components.errors import USER_ERROR_STATUS, ConfigError, EnvironmentFault, ProximalError
from components.place import Place
from components.tracking.provenance import commit_of
from flows.local_run import run_flow, start
from flows.preconditions import require_committed, require_repository, require_sound

INTERRUPTED = "interrupted"  # of a trial that did not come to its end; its values are tried again


def suggest(trial: optuna.Trial) -> dict[str, Any]:
    """The values of a trial, by their keys in params.yaml."""
    learning_rate, kl = "policy_gradient.learning_rate", "policy_gradient.target_kl_nats_per_sequence"
    return {
        learning_rate: trial.suggest_float(learning_rate, 1e-4, 2e-3, log=True),
        kl: trial.suggest_float(kl, 0.5, 4.0),
    }


def try_once(study: optuna.Study, repository: Path) -> None:
    """A trial from its values to what Optuna is told of it."""
    from flows.trial import Tried, trial

    asked = study.ask()

    def goes_on(cycle: int, validation: dict[str, float]) -> bool:
        asked.report(validation["judge"], cycle)
        return not asked.should_prune()

    try:
        overrides = suggest(asked)
        require_sound(repository, overrides)
        came: Tried = run_flow(
            trial,
            repository=repository,
            sweep=study.study_name,
            number=asked.number,
            overrides=overrides,
            goes_on=goes_on,
        )
    except SystemExit as ended:  # why is said already
        if isinstance(ended.code, int) and ended.code > 128:
            raise  # by a person: the next start tries these values again
        study.tell(asked, state=TrialState.FAIL)
        return
    except ProximalError:
        study.tell(asked, state=TrialState.FAIL)
        raise
    asked.set_user_attr("run", came.run_id)
    if came.selected is None or came.evaluation is None or not came.selected["within_ceiling"]:
        study.tell(asked, state=TrialState.PRUNED)  # left early, or no cycle stays below the KL ceiling
        return
    asked.set_user_attr("gold", came.evaluation["candidate"].get("gold", {}).get("mean"))
    asked.set_user_attr("kl", came.selected["kl"])
    # Of validation prompts: whoever chooses by held-out prompts has none left to say how good the choice is.
    study.tell(asked, came.selected["judge"])


def open_study(name: str, repository: Path, file: Path) -> optuna.Study:
    """The study as it was left, or a new one. What was interrupted is queued again: DVC has what was finished of it.

    Raises:
        ConfigError: it is of another commit, whose runs do not compare with these.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=f"sqlite:///{file}",
        study_name=name,
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4),
    )
    seed = load_params(Place(repository).params).seed
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials), n_startup_trials=5)
    commit = commit_of(repository)
    if (before := study.user_attrs.get("commit", commit)) != commit:
        raise ConfigError(
            "the study is of another commit, and its trials would not compare with new ones",
            where=f"--study {name}",
            expected=f"a study of {commit[:12]}, the commit that is checked out",
            found=before[:12],
            do="give it another name, or check that commit out",
        )
    study.set_user_attr("commit", commit)
    for left in study.get_trials(states=[TrialState.RUNNING]):
        study.set_user_attr(f"{INTERRUPTED} {left.number}", True)
        study.tell(left.number, state=TrialState.FAIL)
        if left.params:
            study.enqueue_trial(left.params)
    return study


def lines(study: optuna.Study) -> list[str]:
    """A line a trial."""
    told = [f"{'trial':<7}{'judge':<9}{'gold':<9}{'KL':<7}{'state':<10}values"]
    for one in study.trials:
        figures = (one.value, one.user_attrs.get("gold"), one.user_attrs.get("kl"))
        judge, gold, kl = ("-" if figure is None else f"{figure:.3f}" for figure in figures)
        values = "  ".join(f"{key.rpartition('.')[2]}={value:.3g}" for key, value in one.params.items())
        told.append(f"{one.number:<7}{judge:<9}{gold:<9}{kl:<7}{one.state.name:<10}{values}")
    return told


@click.command()
@click.option("--study", "name", required=True, help="Its name, of letters, digits and -._")
@click.option("--trials", required=True, type=click.IntRange(min=1), help="How many the study shall have in all.")
def main(name: str, trials: int) -> None:
    """Try values until the study has so many trials."""
    try:
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise ConfigError("no name of a study", where="--study", expected="letters, digits and -._", found=name)
        repository = require_repository()
        require_committed(repository)
        file = Place(repository).work / "sweeps" / f"{name}.db"
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(f"{file}.lock", blocking=False):
                study = open_study(name, repository, file)
                start(repository)
                while sum(has_ended(study, one) for one in study.trials) < trials:
                    try_once(study, repository)
                click.echo("\n".join(lines(study)))
        except Timeout as fault:
            raise EnvironmentFault(
                "another process works on this study", where=str(file), do="wait until it ends, or give another name"
            ) from fault
    except ProximalError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(USER_ERROR_STATUS)


def has_ended(study: optuna.Study, one: optuna.trial.FrozenTrial) -> bool:
    """Whether a trial came to an end of its own, good or bad."""
    return one.state.is_finished() and f"{INTERRUPTED} {one.number}" not in study.user_attrs


if __name__ == "__main__":
    main()
