"""Any policy against the SFT policy on the held-out prompts: `proximal evaluate FOLDER_OR_MODEL`."""

from __future__ import annotations

from pathlib import Path

from components.artifacts import atomic_folder, write_json
from components.config import Params
from components.config.accelerate import accelerate_config
from components.data.rows import Prompt, read_rows
from components.errors import ConfigError
from components.interface.policies import policy_folder
from components.measuring.compare import Comparison, compare
from components.measuring.records import write_records
from components.place import Place
from components.promotion.champion import unlike_tokens
from components.stage import set_up


def evaluate(policy: str, params: Params, place: Place, out: Path | None = None) -> Comparison:
    """Measure a policy as the stage evaluation measures the candidate: same prompts, same random numbers, same models.

    Args:
        policy: a folder that a stage or a registered model holds, or NAME@ALIAS or NAME@NUMBER of a registered one.
        out: where metrics.json (the comparison) and records.jsonl go; None for nowhere.

    Raises:
        ArtifactError: the policy, or an output of an earlier stage, is absent or damaged.
        ConfigError: `out` is there already, or the policy has other tokens than the SFT policy.
    """
    if out is not None and out.exists():
        raise ConfigError("the folder is there already", where=f"--out {out}", expected="a new folder", found="files")
    config = accelerate_config(place.root / params.compute.accelerate_config)
    set_up("evaluation", params, config)  # before torch is imported
    from components.measuring.measure import TEST_STREAM, measure_policy
    from components.training.accelerator import start_accelerator

    with policy_folder(policy) as folder:
        require_same_tokens(policy, folder, place.frozen.reference)
        start_accelerator(config)
        prompts = read_rows(place.clean / "prompts_test.jsonl", Prompt)
        samples = params.measurement.test_samples_per_prompt
        sft, candidate = (
            measure_policy(each, place.frozen, params.shared, prompts, samples, TEST_STREAM)
            for each in (place.frozen.reference, folder)
        )
    comparison = compare(sft, candidate, params.evaluation)
    if out is not None:
        with atomic_folder(out) as scratch:
            write_json(scratch / "metrics.json", comparison)
            write_records(scratch / "records.jsonl", {"sft": sft, "candidate": candidate})
    return comparison


def require_same_tokens(policy: str, folder: Path, reference: Path) -> None:
    """KL to the SFT policy is a sum over tokens: it needs the same ones.

    Raises:
        ConfigError: the policy has others.
    """
    if other := unlike_tokens(folder, reference):
        raise ConfigError(
            "the policy has other tokens than the SFT policy, so that there is no KL between them",
            where=f"{policy}: {', '.join(other)}",
            expected=f"the same content as in {reference}",
            found="another",
            do="evaluate it in the project that trained it",
        )
