"""The command that goes from labels to a better policy, round after round."""

from __future__ import annotations

from pathlib import Path

import click

from components.errors import ConfigError
from flows import output
from flows.data import bring_absent_data
from flows.local_run import run_flow, start
from flows.preconditions import require_committed, require_repository, require_sound


@click.command("iterate", short_help="Label, train, gate; and again.")
@click.option("--rounds", type=click.IntRange(min=1), required=True, help="How many there shall be in all.")
@click.option("--comparisons", type=click.IntRange(min=1), default=200, show_default=True,
              help="How many prompts a round asks; a pair of answers to each.")  # fmt: skip
@click.option("--annotators", type=click.Choice(["people", "simulated"]), default="people", show_default=True,
              help="Who compares: people, by `proximal label`, or orchestration.simulated_annotators.")  # fmt: skip
@click.option("--from", "source", type=click.Choice(["champion", "candidate"]), default="champion", show_default=True,
              help="Whom a round goes on from: candidate is that of the round before, also a refused one.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), metavar="FOLDER",
              help="What is asked, said and found; rounds without it.")  # fmt: skip
@output.as_json
def iterate_(rounds: int, comparisons: int, annotators: str, source: str, out: Path | None, as_json: bool) -> None:
    """Go through rounds: the present policy's answers are compared, the comparisons become a version of the data, the
    scorers are trained anew, the cycles go on from the present policy, and the gate decides.

    The present policy is the champion, else the SFT policy. Each round works in clones of the last commit. The same
    command goes on where it was ended, or where it waited for people.
    """
    with output.answering(as_json) as tell:
        repository = require_repository()
        require_sound(repository, {})
        _require_here(repository, annotators)
        bring_absent_data(repository)
        require_committed(repository)
        start(repository)
        from components.interface.rounds import as_plain, rounds_table
        from components.interface.terminal import print_whole
        from flows.iterate import iterate

        out = out or repository / "rounds"
        asked = {"rounds": rounds, "comparisons": comparisons, "annotators": annotators, "out": out, "source": source}
        done = run_flow(iterate, repository=repository, **asked)
        if as_json:
            tell(as_plain(done))
            return
        print_whole(rounds_table(done))
        click.echo(f"table: {out / 'rounds.md'}, figures: {out / 'rounds.json'}")


def _require_here(repository: Path, annotators: str) -> None:
    """
    Raises:
        ConfigError: the annotators cannot be used, the method goes on from no policy, or stages run on other pools.
    """
    from components.config import load_params
    from components.config.params import GOES_ON_FROM_NONE
    from components.interface.label.simulated import load_annotators
    from components.place import Place

    params = load_params(Place(repository).params)
    if annotators == "simulated":
        load_annotators(params)
    if params.method in GOES_ON_FROM_NONE:
        raise ConfigError(
            "this method goes on from no policy",
            where=f"method: {params.method}",
            expected=f"another than {' and '.join(GOES_ON_FROM_NONE)}: what they give is made of the SFT policy",
            found=params.method,
            do="set method: ppo, say",
        )
    if pools := [name for name, pool in params.orchestration.pools.items() if pool]:
        raise ConfigError(
            "the policy that a round goes on from is on this machine alone",
            where=f"orchestration.pools: {', '.join(pools)}",
            expected="no other pools",
            found=", ".join(pools),
            do="set them to null",
        )
