"""What people are told of a promotion's decision while it is made."""

from __future__ import annotations

from collections.abc import Mapping

from components.measuring.metrics import Metric, interval_text, number
from components.promotion.decision import Decision, Limits, demand, percent
from components.promotion.floors import by_suite, floor_line
from components.tracking.registry import ModelVersion

NOT_ASKED = "not asked"  # what a version says that was asked about once, and is decided anew


def title(version: ModelVersion) -> str:
    """E.g. "policy version 3"."""
    return f"{version.name} version {version.number}"


def opponent(champion: ModelVersion | None) -> str:
    """Whom the candidate is held against, in words."""
    return "the SFT policy" if champion is None else title(champion)


def description(tags: Mapping[str, str], metric: Metric, run: str) -> str:
    """What a registered version says of itself, as Markdown.

    Args:
        tags: of the version.
        run: the page of the run that decided on it.
    """
    measured = "gain" in tags and tags["gain"] != "not measured"
    old, new = (tags.get(f"{side}_{metric.name}") for side in ("opponent", "candidate"))
    gain = f"{tags['gain']} [{tags['gain_low']}, {tags['gain_high']}]"
    rows = [f"| {metric.label} | {old} -> {new}: {gain} |", f"| KL to SFT | {tags['kl']} nats per sequence |"]
    rows.append(f"| Length ratio to SFT | {tags['length_ratio']} |")
    if tags.get("suites", "none") != "none":
        rows += [f"| Suite | {told} |" for told in tags["suites"].split("; ")]
    because = "" if tags["reasons"] == "none" else f", because {tags['reasons']}"
    lines = [
        f"{tags['decision'].capitalize()} against {tags['opponent']}{because}. [The run that decided]({run})",
        "",
        f"Cycle {tags['cycle']}; try {tags['try']}.",
        *(["", f"Approval: {tags['approval']}."] if tags.get("approval", NOT_ASKED) != NOT_ASKED else []),
        *(["", "| | |", "|:--|:--|", *rows] if measured else []),
    ]
    return "\n".join(lines)


def report(
    limits: Limits, version: ModelVersion, champion: ModelVersion | None, decision: Decision, *, asked: bool
) -> None:
    """Say what was decided, on what, and against whom; and whether people are asked."""
    end = title(version)
    lines = [
        f"promotion: the candidate against {opponent(champion)}, on held-out prompts, try {limits.attempt} on these",
        *_measured(limits, decision.figures),
        _came_to(decision, end, asked),
        *(f"  {reason}" for reason in decision.reasons),
    ]
    print("\n".join(lines), flush=True)


def _came_to(decision: Decision, who: str, asked: bool) -> str:
    if not decision.promoted:
        return f"refused: {who} stays a candidate, because"
    return f"awaiting approval: {who} passed the gate" if asked else f"promoted: {who} is the champion"


def _measured(limits: Limits, figures: dict[str, float]) -> list[str]:
    if not figures:
        return []
    metric = limits.metric
    old, new = (number(figures[f"{whose}_{metric.name}"], metric) for whose in ("opponent", "candidate"))
    gain = {"mean": figures["gain"], "low": figures["gain_low"], "high": figures["gain_high"]}
    low = number(figures["gain_low_asked"], metric, "+")
    return [
        f"  {metric.name:<14}{old} -> {new}: {interval_text(gain, metric, '+')}, {percent(limits.confidence)} interval",
        f"  {'asked':<14}{demand(limits)} is {low}, {'above' if figures['gain_low_asked'] > 0 else 'not above'} 0",
        f"  {'KL to SFT':<14}{figures['kl']:.2f} nats per sequence (at most {limits.max_kl:g})",
        f"  {'length ratio':<14}{figures['length_ratio']:.2f} (at most {limits.max_length_ratio:g})",
        *(f"  {'suite':<14}{floor_line(name, found)}" for name, found in by_suite(figures).items()),
    ]
