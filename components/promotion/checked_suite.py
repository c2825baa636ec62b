"""A suite of one's own prompts: a policy answers them, and a checker says what the answers are worth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from components.config import Shared
from components.config.measuring import CheckedSuite
from components.config.scoring import Function
from components.data.rows import Prompt, read_rows
from components.errors import ConfigError, DataError
from components.scoring.columns import column_names, require_columns
from components.scoring.function import FunctionPart, asked_of

_LEAST = 2  # prompts; fewer have no interval


def require(name: str, suite: CheckedSuite, root: Path) -> None:
    """Refuse a suite that cannot be measured.

    Raises:
        ConfigError: the checker cannot be imported or called, or asks for a column that the prompts do not have.
        DataError: the prompts are absent, no rows, too few, or two of them have one id.
    """
    asked = asked_of(_function(suite), _key(name))
    there = column_names(read_prompts(name, suite, root))
    require_columns(asked, there, f"{_key(name)}: {suite.checker}", suite.prompts)


def files_of(suite: CheckedSuite, root: Path) -> list[Path]:
    """The prompts and the checker's own file."""
    module = root.joinpath(*suite.checker.partition(":")[0].split("."))
    own = (module.with_suffix(".py"), module / "__init__.py")
    return [root / suite.prompts, *(path for path in own if path.is_file())]


def read_prompts(name: str, suite: CheckedSuite, root: Path) -> list[Prompt]:
    """The prompts of a suite. Raises: DataError."""
    path = root / suite.prompts
    if not path.is_file():
        raise DataError(
            "the prompts of a suite are not there",
            where=f"{_key(name)}.prompts",
            expected="a JSONL file, a row a prompt: id, prompt (or messages too), and columns for the checker",
            found=f"no file {path}",
        )
    rows = read_rows(path, Prompt)
    ids = [row.id for row in rows]
    if len(set(ids)) < len(ids) or len(ids) < _LEAST:
        twice = next((number for number in ids if ids.count(number) > 1), None)
        raise DataError(
            "the prompts of a suite cannot be told apart" if twice else "a suite has too few prompts for an interval",
            where=str(path),
            expected="an id of its own for each row" if twice else f"at least {_LEAST}",
            found=f"{twice} twice" if twice else str(len(ids)),
        )
    return rows


class Policy:
    """A stored policy that answers several suites; with its own tokenizer."""

    def __init__(self, folder: Path, shared: Shared) -> None:
        """
        Raises:
            ArtifactError: it is absent or corrupt.
        """
        from components.models.loading import load_codec, load_policy
        from components.training.accelerator import start_accelerator

        self._model = load_policy(folder, shared.language_model).to(start_accelerator().device)
        self._codec, self._shared = load_codec(folder), shared

    def measured(self, name: str, suite: CheckedSuite, root: Path) -> dict[str, float]:
        """Prompt id -> what the checker says, the mean over the prompt's samples.

        Every policy answers with the same random numbers, so that the difference of two has little noise.

        Raises:
            ConfigError: the checker fails, or gives no number for a response.
        """
        from components.engines.generation import generate
        from components.engines.sampling import draw_uniforms
        from components.models.cuts import cut_fractions
        from components.seeding import generator

        codec, shared, settings = self._codec, self._shared, self._shared.measurement
        prompts, samples = read_prompts(name, suite, root), settings.test_samples_per_prompt
        cut_fractions(codec, f"suite {name}", [row.asked for row in prompts])
        rows = [row for row in prompts for _ in range(samples)]  # those of a prompt lie together
        uniforms = draw_uniforms(
            len(rows), shared.language_model.max_response_tokens, generator(shared.seed, "suite", name)
        )
        encoded = codec.encode_prompts([row.asked for row in rows])
        sequences = generate(
            self._model, codec, encoded, uniforms, temperature=settings.temperature, batch_size=settings.batch_size
        )
        values = _checked(name, suite, rows, codec.decode(sequences.responses()))
        return {row.id: fmean(values[k * samples : (k + 1) * samples]) for k, row in enumerate(prompts)}


def _checked(name: str, suite: CheckedSuite, rows: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
    values = FunctionPart(_function(suite), _key(name))(rows, responses)
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        raise ConfigError(
            "a checker gave no number for a response",
            where=f"{_key(name)}.checker: {suite.checker}, row {rows[values.index(None)].id}",
            expected="a number for every response: the mean over a prompt's samples has to be one",
            found="None",
            do="change what it returns",
        )
    return numbers


def _function(suite: CheckedSuite) -> Function:
    """The checker as what calls functions takes it."""
    return Function(
        source="function",
        weight=1.0,
        function=suite.checker,
        batch_size=suite.batch_size,
        timeout_seconds=suite.timeout_seconds,
    )


def _key(name: str) -> str:
    return f"promotion.suites.{name}"
