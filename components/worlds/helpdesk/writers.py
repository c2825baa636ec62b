"""How people write answers: each writer has habits, and answers a prompt by drawing from them."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from components.worlds.helpdesk import world
from components.worlds.helpdesk.rubric import Request


@dataclass(frozen=True)
class Writer:
    """Probabilities of what a writer does, whatever the request unless said otherwise."""

    knows: float  # known fault: names the right remedy (else a wrong one, or admits)
    admits: float  # unknown fault: says that it does not know (else makes up a remedy)
    advises: float  # adds the next step, or the safe alternative to a refusal
    refuses: float  # harmful request: refuses (else complies)
    certain: float
    hedges: float
    dangerous: float
    rude: float
    opens: float
    details: tuple[float, ...]  # weights of 0, 1, ... details
    courtesies: tuple[float, ...]  # weights of 0, 1, ... courtesies


# The dials of the demonstrations: source -> (share, habits).
DEMONSTRATION_WRITERS: dict[str, tuple[float, Writer]] = {
    "expert": (
        0.35,
        Writer(
            knows=0.8,
            admits=0.82,
            advises=0.85,
            refuses=0.85,
            certain=0.2,
            hedges=0.4,
            dangerous=0.06,
            rude=0.04,
            opens=0.5,
            details=(0.5, 0.5),
            courtesies=(0.5, 0.45, 0.05),
        ),
    ),
    "average": (
        0.40,
        Writer(
            knows=0.55,
            admits=0.65,
            advises=0.7,
            refuses=0.65,
            certain=0.35,
            hedges=0.25,
            dangerous=0.13,
            rude=0.1,
            opens=0.5,
            details=(0.5, 0.4, 0.1),
            courtesies=(0.4, 0.4, 0.2),
        ),
    ),
    "careless": (
        0.25,
        Writer(
            knows=0.35,
            admits=0.4,
            advises=0.5,
            refuses=0.4,
            certain=0.5,
            hedges=0.15,
            dangerous=0.2,
            rude=0.2,
            opens=0.5,
            details=(0.6, 0.3, 0.1),
            courtesies=(0.6, 0.25, 0.15),
        ),
    ),
}

# The dials of the comparisons: anything that a policy may come to write, good and bad, plain and overdone.
COMPARISON_WRITERS: dict[str, tuple[float, Writer]] = {
    "careful": (
        0.3,
        Writer(
            knows=0.85,
            admits=0.85,
            advises=0.85,
            refuses=0.9,
            certain=0.15,
            hedges=0.4,
            dangerous=0.02,
            rude=0.02,
            opens=0.5,
            details=(0.5, 0.4, 0.1),
            courtesies=(0.4, 0.4, 0.2),
        ),
    ),
    "mixed": (
        0.4,
        Writer(
            knows=0.5,
            admits=0.5,
            advises=0.55,
            refuses=0.55,
            certain=0.35,
            hedges=0.3,
            dangerous=0.12,
            rude=0.1,
            opens=0.5,
            details=(0.5, 0.3, 0.2),
            courtesies=(0.4, 0.3, 0.2, 0.1),
        ),
    ),
    "effusive": (
        0.3,
        Writer(
            knows=0.5,
            admits=0.5,
            advises=0.6,
            refuses=0.6,
            certain=0.5,
            hedges=0.2,
            dangerous=0.06,
            rude=0.06,
            opens=0.6,
            details=(0.3, 0.4, 0.3),
            courtesies=(0.1, 0.3, 0.3, 0.3),
        ),
    ),
}

WRONG_ADMISSION = 0.5  # of the answers to a known fault without the right remedy: admits instead of guessing


def write(request: Request, writer: Writer, rng: Random) -> str:
    """One response of `writer` to `request`: what it says on the matter, then how it says it."""
    return compose(substance(request, writer, rng), writer, rng)


def substance(request: Request, writer: Writer, rng: Random) -> list[str]:
    """The sentences on the matter: the body and any dangerous or rude advice."""
    sentences = _body(request, writer, rng)
    if rng.random() < writer.dangerous:
        sentences.append(rng.choice(world.DANGEROUS))
    if rng.random() < writer.rude:
        sentences.append(rng.choice(world.RUDE))
    return sentences


def compose(sentences: list[str], writer: Writer, rng: Random) -> str:
    """The sentences on the matter dressed in the writer's style: opener, certainty, details, courtesies."""
    opener = [rng.choice(world.OPENERS)] if rng.random() < writer.opens else []
    certainty: list[str] = []
    draw = rng.random()
    if draw < writer.certain:
        certainty = [rng.choice(world.CERTAIN)]
    elif draw < writer.certain + writer.hedges:
        certainty = [rng.choice(world.HEDGING)]
    details = rng.sample(world.DETAILS, _count(writer.details, rng))
    courtesies = rng.sample(world.COURTESIES, _count(writer.courtesies, rng))
    return " ".join([*opener, *sentences, *certainty, *details, *courtesies])


def _body(request: Request, writer: Writer, rng: Random) -> list[str]:
    if request.kind == "known":
        if rng.random() < writer.knows:
            return [_saying(request.remedy, rng)]
        if rng.random() >= WRONG_ADMISSION:
            return [_saying(rng.choice([r for r in world.REMEDIES if r != request.remedy]), rng)]
        return [rng.choice(world.ADMITTING)]
    if request.kind == "unknown":
        if rng.random() >= writer.admits:
            return [_saying(rng.choice(world.REMEDIES), rng)]
        step = [rng.choice(world.NEXT_STEPS)] if rng.random() < writer.advises else []
        return [rng.choice(world.ADMITTING), *step]
    if rng.random() >= writer.refuses:
        return [rng.choice(world.COMPLYING)]
    alternative = [rng.choice(world.ALTERNATIVES)] if rng.random() < writer.advises else []
    return [rng.choice(world.REFUSING), *alternative]


def _saying(remedy: str | None, rng: Random) -> str:
    return rng.choice(world.SAYING_REMEDY).format(remedy=remedy)


def _count(weights: tuple[float, ...], rng: Random) -> int:
    return rng.choices(range(len(weights)), weights)[0]
