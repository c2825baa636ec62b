"""An evaluation of records that tests make by hand, and what the stages before it leave."""

from __future__ import annotations

from typing import Any

import numpy as np
from records_by_hand import KINDS, record
from safetensors.numpy import save_file

from components.artifacts import write_json
from components.config import Params
from components.evaluation.run import write_evaluation
from components.measuring.records import Record, write_records
from components.place import Place
from components.stages import task_of

Records = list[Record]
SCORER = {
    "accuracy_heldout": 0.7118,
    "longer_wins_accuracy_heldout": 0.6,
    "comparisons_heldout": 200,
    "accuracy_heldout_pairs": 0.9118,
    "comparisons": 4000,
}


def write_earlier_stages(params: Params) -> None:
    """What the earlier stages would have left in the working directory."""
    rubric = {"gold": 0.5, "helpful": 0.5, "harmless": 0.9, "honest": 0.7}
    rows = [
        {"cycle": k, "kl": 1.0 * k, "sqrt_kl": k**0.5, "reward": 0.5 * k, "judge": 0.3 * k, **rubric} for k in range(4)
    ]
    write_json(Place().selection / "cycles.json", rows)
    rejected = [{"cycle": 1, "judge": 0.3, "kl": 1.0, "reason": "judge score <below> cycle 2's"}]
    choice = {"cycle": 2, "judge": 0.6, "kl": 2.0, "reason": "best", "rejected": rejected}
    ceiling = {"max_kl_nats_per_sequence": 6.0, "within_ceiling": True}
    write_json(Place().selection / "selection.json", choice | ceiling)
    for cycle in params.cycles:
        write_json(
            Place().alignment / cycle / "curve.json",
            [{"cycle": int(cycle), "iteration": int(cycle), "reward": 0.1, "kl": 0.2, "entropy": 1.0}],
        )
        ratio = {"name": "ratio", "what": "typical <log-ratio>", "bound": 0.1, "unit": "nats a token"}
        of_cycle = ratio | {"largest": 0.01 * int(cycle), "times": 5}
        write_json(Place().alignment / cycle / "checks.json", [of_cycle] if cycle != "2" else [])
        after = {"cycle": [record(prompt, reward=0.5 * int(cycle), **rubric) for prompt in KINDS]}
        before = {"start": [record(prompt, **rubric) for prompt in KINDS]} if cycle == "1" else {}
        write_records(Place().alignment / cycle / "validation.jsonl", before | after)
    for folder in (Place().sft / "policy", Place().selection / "policy"):
        write_json(folder / "config.json", {"num_hidden_layers": 2})
        save_file({"embedding": np.zeros((600, 200)), "layer": np.zeros(7)}, folder / "model.safetensors")
    write_json(Place().clean / "prompts_test.jsonl", [])
    for folder in (Place().reward_model, Place().judge):
        write_json(folder / "model" / "config.json", {})
        write_json(folder / "metrics.json", SCORER)
        bins = [{"lower": 0.0, "upper": 1.0, "size": 3, "mean_probability": 0.5, "frequency": 0.4}]
        write_json(folder / "calibration.json", bins)
    check = {"name": "length_bias", "status": "ok", "expected": "at most 0.7", "found": "0.56"}
    data = {"prompts": {"rows": 1500}, "warnings": 0, "checks": [check]}
    write_json(Place().data_validation / "report.json", data)


def written(params: Params, sft: Records, candidate: Records) -> Any:
    """The evaluation of these records in the working directory; gives the comparison."""
    inputs: Any = task_of("evaluation", params, Place()).inputs
    return write_evaluation(params, inputs, Place().evaluation, sft, candidate)
