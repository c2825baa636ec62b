"""The evaluation's page once more, with what promotion decided on top of it, and the run that it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from components.artifacts import atomic_write_text
from components.config import Promotion
from components.promotion.floors import by_suite, floor_line
from components.promotion.verdict import (
    ALREADY_ASKED,
    ALREADY_CHAMPION,
    ALREADY_REFUSED,
    AWAITING,
    BLOCKED,
    PROMOTED,
    REFUSED,
    Verdict,
    figures_in,
    metric_of,
)
from components.reports.numbers import bounds, signed, unsigned
from components.reports.page import render_page, with_part
from components.tracking.attachments import address, params_of
from components.tracking.history import RunRecord
from components.tracking.registry import PROMOTION_RUN, ModelVersion

TEMPLATE = Path(__file__).with_name("decision.html.jinja")
PAGE = "report.html"
_CAME_TO = {
    PROMOTED: "Promoted: {} is the champion",
    REFUSED: "Refused: {} stays a candidate",
    ALREADY_CHAMPION: "Already champion: {} is this very policy",
    ALREADY_REFUSED: "Already refused: {} stays a candidate",
    AWAITING: "Awaiting approval: {} passed the gate",
    ALREADY_ASKED: "Awaiting approval: {} passed the gate",
    BLOCKED: "Already rolled back: {} stays a candidate",
}


@dataclass(frozen=True)
class Condition:
    """One of the conditions of promotion; `met` None where it was not measured."""

    name: str
    found: str
    limit: str
    met: bool | None


def write_page(
    evaluation: str,
    folder: Path,
    verdict: Verdict,
    version: ModelVersion,
    champion: ModelVersion | None,
    record: RunRecord,
    limits: Promotion,
    params: Mapping[str, str],
) -> Path:
    """Write report.html into `folder` and return it. It tells of one run, so that it is no output of DVC's.

    Args:
        evaluation: the page that the evaluation wrote; see `page_with_slot`.
        version: of the candidate, as the registry has it now.
        champion: before the decision.
        record: the run of this promotion.
        params: of this run by dotted names.
    """
    decided_now = verdict.decision in (PROMOTED, REFUSED, AWAITING)
    against = champion if verdict.decision != ALREADY_CHAMPION else None
    part = render_page(
        TEMPLATE,
        title=_CAME_TO[verdict.decision].format(f"{version.name} version {version.number}"),
        is_champion=verdict.is_champion,
        word="champion" if verdict.is_champion else "awaiting approval" if verdict.is_asked else "refused",
        decided_now=decided_now,
        tags=version.tags,
        reasons=[] if verdict.is_champion or verdict.is_asked else verdict.reasons,
        conditions=conditions(version.tags, limits),
        origin=_origin(version, record),
        run_address=address(record.run_id),
        champion=against,
        differing=None if against is None else differing(_params_of(against), params),
    )
    page = folder / PAGE
    atomic_write_text(page, with_part(evaluation, part))
    return page


def conditions(tags: Mapping[str, str], limits: Promotion) -> list[Condition]:
    """What had to hold and what was found, from the tags of a registered version."""
    metric = metric_of(tags)
    rows = (
        ("gain", f"{metric.label} of the candidate less that of {tags['opponent']}", "above 0, beyond its interval"),
        ("kl", "KL to SFT, nats per sequence", f"at most {limits.max_kl_nats_per_sequence:g}"),
        ("length_ratio", "Mean length over that of SFT", f"at most {limits.max_length_ratio:g}"),
    )
    figures = figures_in(tags)
    if "gain" not in figures:
        return [Condition(label, "not measured", limit, None) for _, label, limit in rows]
    ends = {"low": figures["gain_low"], "high": figures["gain_high"]}
    asked = figures.get("gain_low_asked", figures["gain_low"])  # a version of earlier code was asked for no more
    found = {
        "gain": f"{signed(figures['gain'], metric.decimals)} {bounds(ends, metric.decimals)}; "
        f"the lower bound that this try asks for is {signed(asked, metric.decimals)}",
        "kl": unsigned(figures["kl"], 2),
        "length_ratio": unsigned(figures["length_ratio"], 2),
    }
    met = {
        "gain": asked > 0.0,
        "kl": figures["kl"] <= limits.max_kl_nats_per_sequence,
        "length_ratio": figures["length_ratio"] <= limits.max_length_ratio,
    }
    return [
        *(Condition(label, found[name], limit, met[name]) for name, label, limit in rows),
        *(_floor(name, measured, limits) for name, measured in by_suite(figures).items()),
    ]


def _floor(name: str, measured: Mapping[str, float], limits: Promotion) -> Condition:
    suite = limits.suites.get(name)  # params may have changed since
    least = suite.max_fall if suite is not None else None
    limit = "no fall beyond its interval" + (f", nor by more than {least:g}" if least is not None else "")
    met = not measured["gain_high"] < 0.0 and (least is None or not measured["gain"] < -least)
    return Condition(f"Suite {name}, candidate against the opponent", floor_line(name, measured), limit, met)


def differing(champion: Mapping[str, str], candidate: Mapping[str, str]) -> list[tuple[str, str, str]] | None:
    """(name, champion's, candidate's) of the params that are not alike; None where the champion's are not known."""
    if not champion:
        return None
    names = list(dict.fromkeys([*candidate, *champion]))
    values = [(name, champion.get(name, "none"), candidate.get(name, "none")) for name in names]
    return [row for row in values if row[1] != row[2]]


def _params_of(champion: ModelVersion) -> dict[str, str]:
    """Of the pipeline's run that it was promoted in; a promotion by hand knows its own section alone."""
    parent = champion.tags.get("parent_run_id")
    return params_of(parent) if parent else {}


def _origin(version: ModelVersion, record: RunRecord) -> list[tuple[str, str]]:
    tags = record.tags
    dirty = ", with uncommitted changes" if tags.get("git_dirty") == "true" else ""
    told = {
        "Date": datetime.fromtimestamp(record.started / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "Git revision": tags.get("git_commit", "none") + dirty,
        "Data (data.dvc)": tags.get("data_md5", "none"),
        "Params, SHA-256": tags.get("params_sha256", "none"),
        "MLflow run of this promotion": record.run_id,
        "MLflow run that decided": version.tags.get(PROMOTION_RUN, "none"),
        "MLflow run of the pipeline": tags.get("parent_run_id", "none"),
        "Prefect flow run": tags.get("prefect_flow_run_id", ""),
    }
    return [(name, value) for name, value in told.items() if value]
