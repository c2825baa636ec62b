"""The answers that people compare: sampled once and scored, before the first page is shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from components.config import Params
from components.config.accelerate import accelerate_config
from components.data.rows import Prompt, read_rows
from components.data_validation.normalisation import has_encoding_fault, visible
from components.digests import digest
from components.errors import ConfigError, DataError
from components.interface.evaluate import require_same_tokens
from components.interface.label.pairs import Answer, Policy, Queue, in_order, pair_of
from components.interface.policies import policy_folder, sft_and_best, version_named
from components.place import Place
from components.seeding import derive_seed
from components.stage import set_up
from components.tracking.registry import POLICY_DIGEST


def named_policies(names: Sequence[str], params: Params, place: Place) -> dict[str, Policy]:
    """What answers, by where it is found: those named, or the SFT policy and the champion (else the selected one).

    Raises:
        ArtifactError: there is no such policy.
        ConfigError: they are more than two.
    """
    if len(names) > 2:
        expected = "one policy, or two to compare"
        raise ConfigError("a pair has two answers", where="--policy", expected=expected, found=f"{len(names)}")
    return {name: _named(name, place) for name in names or sft_and_best(params, place)}


def sample_queue(policies: dict[str, Policy], params: Params, place: Place, prompts: int, draw: int = 0) -> Queue:
    """Let policies answer training prompts, score the answers, and put them into the order in which people see them.

    The prompts are those of training, for what is labelled is trained on. Which of them depends on the policies, too:
    those of the next round are asked others. The two answers to a prompt are independent samples.

    Args:
        policies: as of `named_policies`.
        prompts: how many; all where there are fewer.
        draw: another number asks other prompts, and samples other answers of the same policies.

    Raises:
        ArtifactError: a policy, or an output of an earlier stage, is absent or damaged.
        ConfigError: a policy has other tokens than the SFT policy.
        DataError: no two answers differ.
    """
    config = accelerate_config(place.root / params.compute.accelerate_config)
    set_up("evaluation", params, config)  # before torch is imported
    from components.measuring.measure import measure_policy
    from components.training.accelerator import start_accelerator

    start_accelerator(config)
    drawn = [policy.digest for policy in policies.values()] + ([str(draw)] if draw else [])
    rows = sorted(
        read_rows(place.clean / "prompts_train.jsonl", Prompt),
        key=lambda row: derive_seed(params.seed, "label", *drawn, row.id),
    )[:prompts]
    again = f"/{draw}" if draw else ""
    both = [*policies.items()] * (2 if len(policies) == 1 else 1)
    answers: list[list[Answer]] = []
    for number, (name, policy) in enumerate(both):
        with policy_folder(name) as folder:
            require_same_tokens(name, folder, place.frozen.reference)
            records = measure_policy(folder, place.frozen, params.shared, rows, 1, f"label/{number}{again}")
        answers.append([Answer(policy, each.response, each.reward, each.judge) for each in records])
    limit = params.data_validation.max_response_characters
    pairs = in_order(
        pair_of(row.prompt, row.messages, first, second)
        for row, first, second in zip(rows, *answers, strict=True)
        if _can_be_data(first.text, second.text, limit)
    )
    if not pairs:
        raise DataError(
            "there is nothing to compare",
            where=", ".join(policies),
            expected="two answers that differ, and are rows that data/ may hold",
            found=f"none to any of {len(rows)} prompts",
            do="choose other policies with --policy, or more prompts",
        )
    return Queue(tuple(policies.values()), prompts, pairs)


def _can_be_data(first: str, second: str, longest: int) -> bool:
    """Whether validation would take the pair: a label of what it refuses would be lost.

    Args:
        longest: how many characters a response may have.
    """
    sound = all(text.strip() and len(text) <= longest and not has_encoding_fault(text) for text in (first, second))
    return sound and visible(first) != visible(second)


def _named(name: str, place: Place) -> Policy:
    version = version_named(name)
    if version is not None:
        return Policy(name, version.tags.get(POLICY_DIGEST, f"{version.name}@{version.number}"))
    with policy_folder(name) as folder:
        here, root = folder.resolve(), place.root.resolve()
        shown: Path = here.relative_to(root) if here.is_relative_to(root) else folder
        return Policy(shown.as_posix(), digest(folder))
