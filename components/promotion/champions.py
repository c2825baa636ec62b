"""How the alias `champion` moves: by a run that promotes, back to the version before, or by hand. Never without a note.

A champion that is gone (its version deleted, or the alias taken away in MLflow) is a question to people: to go on
against the SFT policy without a word would crown the same policy again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from components.errors import ArtifactError, ConfigError
from components.promotion.report import opponent, title
from components.tracking.moves import (
    BY_HAND,
    FOUND,
    ROLLED_BACK,
    Block,
    Move,
    block,
    block_on,
    moves,
    note_move,
    unblock,
)
from components.tracking.registry import (
    CHAMPION,
    POLICY_DIGEST,
    ModelVersion,
    all_versions,
    drop_alias,
    has_files,
    set_alias,
    set_tags,
    version_at,
)

SFT = "sft"  # the opponent where there is no champion
A_RUN = "a run"


@dataclass(frozen=True)
class Moved:
    """What moved: versions, None where there is none."""

    before: int | None
    now: ModelVersion | None

    def sentence(self, name: str) -> str:
        """In words."""
        before = f"{name} version {self.before}" if self.before is not None else "none"
        after = title(self.now) if self.now else "none: the next candidate is held against the SFT policy"
        return f"champion: {before} -> {after}"


def champion_of(name: str) -> ModelVersion | None:
    """The champion; None where there has been none, or people have said that there is none.

    Raises:
        ArtifactError: there was one, and its version or its alias was taken away.
    """
    champion = version_at(name, CHAMPION)
    if champion is None and (last := _last(name)) is not None and last.version is not None:
        there = any(version.number == last.version for version in all_versions(name))
        raise ArtifactError(
            "the champion is gone, and nobody has said what shall be champion now",
            where=f"{name}@{CHAMPION}",
            expected=f"{name} version {last.version}",
            found="the version without the alias" if there else "the version was deleted",
            do="`proximal rollback` makes the version before it champion again, `proximal rollback --to sft` none (the "
            "next candidate is held against the SFT policy), `proximal promote VERSION` any other",
        )
    return champion


def require_champion(name: str) -> None:
    """Refuse, before anything is paid for, to begin what a lost champion would stop at its end.

    Raises:
        ArtifactError: the champion is gone, or its files are.
    """
    champion = champion_of(name)
    if champion is not None and not has_files(champion):
        raise _without_files(champion, "no candidate can be held against it")


def crown(version: ModelVersion, why: str, by: str, reason: str) -> None:
    """Make a version the champion, and note it."""
    _note_what_is(version.name)
    set_alias(version, CHAMPION)
    note_move(version.name, Move(version.number, version.tags.get(POLICY_DIGEST, ""), why, by, reason))


def heal(champion: ModelVersion) -> None:
    """Note a champion of whom nothing was noted: made so before there were notes, in MLflow, or by a killed run."""
    _note_what_is(champion.name)


def roll_back(name: str, to: str | None, by: str, reason: str) -> Moved:
    """Move `champion` back, and keep the policy that it leaves from becoming champion by a run again.

    Args:
        to: a version's number, or "sft" for none; None for the last one before that still may be champion.

    Raises:
        ArtifactError: the version's files are gone.
        ConfigError: there is no champion, or no such version to go back to.
    """
    _note_what_is(name)
    champion, last = version_at(name, CHAMPION), _last(name)
    if last is None or (champion is None and last.version is None):
        raise ConfigError("there is no champion to roll back", where=f"{name}@{CHAMPION}", expected="a champion",
                          found="none", do="the first promotion makes one")  # fmt: skip
    leaving, left_digest = last.version, last.policy_digest
    assert leaving is not None, "a champion without a note has been noted above"
    target = _before(name, leaving) if to is None else _named(name, to, leaving)
    block(name, left_digest, Block(leaving, by, reason))
    if champion is not None:
        set_tags(champion, {"rolled_back": f"by {by}: {reason}"})
    if target is None:
        drop_alias(name, CHAMPION)
        note_move(name, Move(None, "", ROLLED_BACK, by, reason))
    else:
        crown(target, ROLLED_BACK, by, reason)
    return Moved(leaving, target)


def promote_by_hand(name: str, version: ModelVersion, by: str, reason: str) -> Moved:
    """Make any version the champion, whatever the gate said of it; its policy's block is lifted.

    Raises:
        ArtifactError: its files are gone.
        ConfigError: it is the champion.
    """
    champion = version_at(name, CHAMPION)
    if champion is not None and champion.number == version.number:
        raise ConfigError("this version is the champion", where=f"{name}@{version.number}", expected="another version")
    if not has_files(version):
        raise _without_files(version, "it cannot answer anybody")
    unblock(name, version.tags.get(POLICY_DIGEST, ""))
    crown(version, BY_HAND, by, reason)
    set_tags(version, {"promoted_by_hand": f"by {by}: {reason}"})
    return Moved(champion.number if champion else None, version)


def why_blocked(name: str, policy_digest: str) -> str | None:
    """Why a policy may not become champion by a run, in words; None where it may."""
    found = block_on(name, policy_digest)
    if found is None:
        return None
    return (
        f"the policy was rolled back as version {found.version} by {found.by} ({found.reason}); `proximal promote` "
        "makes it champion all the same"
    )


def require_same_champion(name: str, held_against: str, what: Literal["compared", "asked about"]) -> None:
    """Refuse to dethrone a champion that came while a candidate was compared with another, or people were asked.

    Args:
        held_against: the champion then, as `opponent` says it.
    """
    now = version_at(name, CHAMPION)
    if opponent(now) != held_against:
        raise ArtifactError(
            f"the champion changed while the candidate was {what}",
            where=f"{name}@{CHAMPION}",
            expected=held_against,
            found=opponent(now),
            do="promote again: `python -m components.launch promotion`",
        )


def gate_figures(tags: Mapping[str, str]) -> list[tuple[str, str]]:
    """What the gate found of a version, by names for people."""
    shown = ("decision", "opponent", "reasons", "gain", "gain_low", "gain_high", "kl", "length_ratio", "suites", "try")
    more = ("approval", "rolled_back", "promoted_by_hand")
    return [(name, tags[name]) for name in (*shown, *more) if name in tags]


def _last(name: str) -> Move | None:
    return next(reversed(moves(name)), None)


def _note_what_is(name: str) -> None:
    champion, last = version_at(name, CHAMPION), _last(name)
    if champion is not None and (last is None or last.version != champion.number):
        found = Move(champion.number, champion.tags.get(POLICY_DIGEST, ""), FOUND, "nobody noted", "")
        note_move(name, found)


def _before(name: str, leaving: int) -> ModelVersion | None:
    """The last champion before that is there, with its files, and not blocked; None where there is none: SFT."""
    there = {version.number: version for version in all_versions(name)}
    for move in reversed(moves(name)):
        version = there.get(move.version) if move.version is not None else None
        if version is None or version.number == leaving or block_on(name, move.policy_digest):
            continue
        if has_files(version):
            return version
    return None


def _named(name: str, to: str, leaving: int) -> ModelVersion | None:
    if to == SFT:
        return None
    before = [str(move.version) for move in moves(name) if move.version not in (None, leaving)]
    there = {str(version.number): version for version in all_versions(name)}
    fit = list(dict.fromkeys(number for number in before if number in there))
    if to not in fit:
        raise ConfigError(
            "there is no such version to roll back to",
            where=f"--to {to}",
            expected=f"one that was champion before: {', '.join(fit) or 'there is none'}; or {SFT}, for none",
            found="the champion itself" if to == str(leaving) else to,
            do="`proximal promote VERSION` makes any version champion",
        )
    version = there[to]
    if why := why_blocked(name, version.tags.get(POLICY_DIGEST, "")):
        raise ConfigError("this version was rolled back itself", where=f"--to {to}", found=why)
    if not has_files(version):
        raise _without_files(version, "it cannot be champion again")
    return version


def _without_files(version: ModelVersion, so: str) -> ArtifactError:
    return ArtifactError(
        f"the files of a registered model are gone: {so}",
        where=title(version),
        expected="its policy in the artifact store",
        found="none",
        do="restore them there; or `proximal rollback` makes the champion before it champion again (`--to sft`: none)",
    )
