"""People's word on what the gate would promote. The question stands in the registry, whoever takes the answer.

A version that passed is tagged as awaiting approval until a moment. Whether it is answered from Prefect's pages, its
API or a terminal, the answer is given here: it moves the alias, and every place that told the verdict tells it anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from components.config.orchestration import Approval
from components.errors import ConfigError
from components.promotion.card import attach_card
from components.promotion.champions import crown, require_same_champion
from components.promotion.report import description, title
from components.promotion.verdict import AWAITING, PROMOTED, REFUSED, Verdict, figures_in, metric_of
from components.tracking.attachments import page_in_mlflow
from components.tracking.history import get_run
from components.tracking.moves import PROMOTED as BY_A_RUN
from components.tracking.registry import PROMOTION_RUN, ModelVersion, all_versions, describe, set_tags
from components.tracking.writing import log_texts

UNTIL = "approval_until"
ASKED_BY = "asked_by:"  # and a flow run that asks, and may be resumed with an answer to a question of before


def question(settings: Approval, flow_run: str) -> dict[str, str]:
    """The tags of a version that people are asked about.

    Args:
        flow_run: Prefect's run that asks; "" for none.
    """
    until = datetime.now(UTC) + timedelta(hours=settings.timeout_hours)
    return {
        "approval": f"asked, with time until {_minute(until)}; without an answer it stays a candidate",
        UNTIL: until.isoformat(),
        **({f"{ASKED_BY}{flow_run}": until.isoformat()} if flow_run else {}),
    }


def is_open(tags: Mapping[str, str]) -> bool:
    """Whether a version still waits for an answer."""
    return tags.get("decision") == AWAITING and datetime.now(UTC) < _until(tags)


def awaiting(version: ModelVersion, decision: str = AWAITING) -> Verdict:
    """The verdict on a version that waits."""
    tags = version.tags
    return Verdict(
        decision,
        version.name,
        version.number,
        tags["opponent"],
        metric=metric_of(tags).name,
        figures=figures_in(tags),
        until=_minute(_until(tags)),
    )


def asked_by(flow_run: str) -> ModelVersion | None:
    """The version that a flow run asked about, of whatever model; None where it asked nothing."""
    return next((version for version in all_versions() if ASKED_BY + flow_run in version.tags), None)


def verdict_on(version: ModelVersion) -> Verdict:
    """What became of a version that was asked about."""
    tags = version.tags
    if tags["decision"] == AWAITING:
        return awaiting(version)
    reasons = () if tags["reasons"] == "none" else (tags["reasons"],)
    metric = metric_of(tags).name
    return Verdict(tags["decision"], version.name, version.number, tags["opponent"], reasons, metric, figures_in(tags))


def answer(version: ModelVersion, *, approved: bool, by: str, reason: str, root: Path = Path()) -> Verdict:
    """Take the answer: an approved version is the champion, a rejected one stays a candidate.

    Args:
        root: of the repository, for the model card.

    Raises:
        ArtifactError: another champion has come since: the comparison does not hold against it.
        ConfigError: nobody is asked about this version, or not any more.
    """
    if version.tags.get("decision") != AWAITING or not is_open(version.tags):
        over = version.tags.get("decision") == AWAITING
        raise ConfigError(
            "the time to answer is over" if over else "nobody is asked about this version",
            where=title(version),
            expected="a version that awaits approval",
            found=f"asked until {_minute(_until(version.tags))}" if over else version.tags.get("decision", "none"),
            do="`proximal run` asks again" if over else "`proximal promote VERSION` makes any version champion",
        )
    said = f"{'approved' if approved else 'rejected'} by {by}: {reason}"
    if approved:
        require_same_champion(version.name, version.tags["opponent"], "asked about")
        tags = {"decision": PROMOTED, "approval": said}
    else:
        tags = {"decision": REFUSED, "reasons": said, "approval": said}
    if approved:  # first, so that no version is called promoted that is no champion
        crown(version, BY_A_RUN, by, said)
    set_tags(version, tags)
    now = ModelVersion(version.name, version.number, version.run_id, {**version.tags, **tags}, version.aliases)
    verdict = verdict_on(now)
    describe(version, description(now.tags, metric_of(now.tags), page_in_mlflow(now.tags[PROMOTION_RUN])))
    for run in (now.tags[PROMOTION_RUN], now.tags.get("parent_run_id")):
        if run and get_run(run) is not None:
            log_texts(run, tags={**verdict.tags(), "approval": said})
    attach_card(now, root)
    return verdict


def _until(tags: Mapping[str, str]) -> datetime:
    return datetime.fromisoformat(tags[UNTIL])


def _minute(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC")
