"""How MLflow answers prompts with a registered policy; it is called by `mlflow.pyfunc.load_model`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from components.engines.answering import Answerer
from components.errors import DataError


class PolicyModel:
    """Text in, text out."""

    def __init__(self, folder: Path) -> None:
        self._answerer = Answerer(folder)

    def predict(self, data: Any, params: dict[str, Any]) -> list[str]:
        """One response a prompt.

        Args:
            data: a list of prompts, or a table whose first column is "prompt"; MLflow hands on that column alone, and a
                list as a column without a name.
            params: temperature, seed and max_response_tokens; MLflow fills in what the caller leaves out.

        Raises:
            DataError: anything else.
        """
        return self._answerer.answer(
            _prompts(data),
            temperature=params["temperature"],
            max_response_tokens=params["max_response_tokens"],
            seed=params["seed"],
        )


def _prompts(data: Any) -> list[str]:
    columns = list(getattr(data, "columns", []))
    known = next((name for name in ("prompt", 0) if name in columns), None)
    found = data if known is None else data[known]
    prompts = [found] if isinstance(found, str) else list(found)
    if (columns and known is None) or not all(isinstance(prompt, str) for prompt in prompts):
        raise DataError(
            "the model cannot read these prompts",
            where="the input of predict",
            expected='a list of texts, or a table whose first column is "prompt"',
            found=f"the columns {columns}" if columns else repr(data)[:80],
        )
    return prompts


def _load_pyfunc(data_path: str) -> PolicyModel:
    return PolicyModel(Path(data_path))
