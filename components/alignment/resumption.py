"""An interrupted cycle goes on as if it had not been interrupted: what a checkpoint was, noted with it, is looked for.

Beside each iteration's checkpoint lie the fingerprints of all weights and of the optimiser's state, and the policy's
logprobs of a few prompts. What is loaded again must have the first to the bit, and come to the second.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from components.alignment.method import Job, Learner, Trainable
from components.artifacts import read_json, reading
from components.models.text import Codec
from components.passes.forward import response_logprobs
from components.passes.sequences import Sequences, build_sequences
from components.self_checks import Check
from components.training.fingerprint import fingerprint, weights_of
from components.training.sharding import passed_through

FILE = "as_stored.json"  # in the work folder alone
_PROMPTS = 4  # whose tokens are looked at
_UNLIKE = 8  # weights that an error names
_NATS = {"no": 1e-4, "half": 0.1}  # of a token: 0 on the machine that wrote it; another one's CPU adds up otherwise
_DO = "its files, or what computes with them, changed in between: delete that folder, and the cycle begins anew"


def as_stored(job: Job, learner: Learner, optimizer: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the learner is now, in numbers; every process has to call it.

    Args:
        optimizer: its whole state, in the first process; empty in others, which are given no numbers of it.
    """
    models = learner.stored()
    return {
        "weights": fingerprint(weights_of(models)),
        "optimizer": fingerprint(optimizer),
        "logprobs": _logprobs(job, models["policy"], learner.trainable()) if "policy" in models else [],
    }


def require_as_stored(job: Job, learner: Learner, optimizer: Mapping[str, Tensor], folder: Path) -> None:
    """See that a learner that was loaded from `folder` is what was stored there; every process has to call it.

    Raises:
        ArtifactError: what it was is not stored there.
        TrainingError: it is another one; by which weights, or how much, is said.
    """
    path = folder / FILE
    with reading("fingerprint of a checkpoint", path, "weights, optimizer and logprobs"):
        stored = read_json(path)
        expected = {name: {**stored[name]} for name in ("weights", "optimizer")}
        logprobs = torch.tensor(stored["logprobs"], dtype=torch.float64)
    found = as_stored(job, learner, optimizer)
    if not job.accelerator.is_main_process:
        found["optimizer"] = expected["optimizer"]  # which the first process alone has whole
    iteration = int(read_json(folder / "state" / "progress.json")["iteration"])
    where = f"{learner.name}, iteration {iteration}, as {folder} has it"
    fault = "the interrupted cycle would not go on with what it had come to"
    for name, what in (("weights", "weights"), ("optimizer", "moments of the optimiser")):
        of_now, before = found[name], expected[name]
        unlike = sorted(key for key in of_now.keys() | before.keys() if of_now.get(key) != before.get(key))
        job.checks.hold(
            Check(f"resumed_{name}", f"{what} unlike those that were stored", 0, f"of {len(before)}"),
            len(unlike),
            where=where,
            fault=fault,
            do=_DO,
            step=iteration,
            detail=", ".join(unlike[:_UNLIKE]),
            is_kept=False,
        )
    bound = _NATS["no" if job.accelerator.mixed_precision == "no" else "half"]
    again = torch.tensor(found["logprobs"], dtype=torch.float64)
    alike = again.shape == logprobs.shape
    gap = float((again - logprobs).abs().max()) if alike and len(again) else 0.0 if alike else torch.inf
    job.checks.hold(
        Check("resumed_logprobs", "largest gap to the policy's logprobs before the interruption", bound, "nats"),
        gap,
        where=where,
        fault=fault,
        do=_DO,
        step=iteration,
        is_kept=False,
    )


def require_one_model(job: Job, of_weights: Mapping[str, int], where: str, step: int) -> None:
    """See that all processes hold the same weights, to the bit; of sharded ones there is only one copy.

    Args:
        of_weights: their fingerprint in this process, as `as_stored` has it.

    Raises:
        TrainingError: they do not; which processes and weights is said.
    """
    accelerator = job.accelerator
    if accelerator.num_processes == 1 or not of_weights:
        return
    mine = torch.tensor([list(of_weights.values())], device=accelerator.device)
    found = accelerator.gather(mine)
    differs = found != found[0]
    names = [name for name, is_unlike in zip(of_weights, differs.any(dim=0).tolist(), strict=True) if is_unlike]
    ranks = [str(rank) for rank, is_unlike in enumerate(differs.any(dim=1).tolist()) if is_unlike]
    job.checks.hold(
        Check("processes", "weights in which processes differ", 0, f"of {len(of_weights)}"),
        len(names),
        where=where,
        fault="the processes do not train one model",
        do="what was finished before is kept: run again, and report it if it comes back",
        detail=f"rank(s) {', '.join(ranks)} against rank 0: {', '.join(names[:_UNLIKE])}",
        step=step,
    )


def _logprobs(job: Job, policy: nn.Module, trainable: Trainable | None) -> list[float]:
    """The policy's logprobs of the first prompts' tokens, as texts like others."""
    probe = _probe(job.frozen.codec, [row.asked for row in job.cycle.prompts[:_PROMPTS]])
    if probe is None:
        return []
    trained = policy if trainable is None else trainable.model
    with torch.no_grad(), job.accelerator.autocast(), passed_through(job.accelerator, trained, policy) as asked:
        logprobs = response_logprobs(asked, probe.to(job.accelerator.device), 1.0)
    found: list[float] = logprobs[probe.response_mask.to(logprobs.device)].double().tolist()
    return found


def _probe(codec: Codec, asked: list[Any]) -> Sequences | None:
    rows = [row for row in codec.encode_prompts(asked) if len(row) > 1]
    return build_sequences([row[:1] for row in rows], [row[1:] for row in rows], codec.pad_id) if rows else None
