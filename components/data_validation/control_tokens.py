"""Control tokens that texts spell. They are read as text, and an end token at the end as the one that is there anyway;
but data that holds them was often written for another format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from components.config import LanguageModel
from components.data_validation.checks import SHOWN_EXAMPLES, Check
from components.data_validation.reading import Row, place_of
from components.data_validation.schemas import FileName
from components.models.checkpoint_tokenizer import load_checkpoint_tokenizer
from components.models.control_texts import control_texts, without_end
from components.models.text import SCRATCH_CONTROL_TOKENS, SCRATCH_EOS

_TEXTS: dict[FileName, tuple[str, ...]] = {
    "prompts": ("prompt",),
    "demonstrations": ("prompt", "response"),
    "comparisons": ("prompt", "chosen", "rejected"),
}


def control_token_checks(kept: Mapping[FileName, Sequence[Row]], config: LanguageModel) -> list[Check]:
    """How many texts end in an end token's text, and how many spell a control token elsewhere.

    Raises:
        ConfigError: the checkpoint's tokenizer cannot be loaded.
    """
    control: Sequence[str] = SCRATCH_CONTROL_TOKENS
    ends: Sequence[str] = (SCRATCH_EOS,)
    if config.checkpoint != "scratch":
        tokenizer = load_checkpoint_tokenizer(config)
        control, ends = control_texts(tokenizer), (str(tokenizer.eos_token),)
    ended, spelled = [], []
    for file, columns in _TEXTS.items():
        for row in kept[file]:
            for column in columns:
                bare = without_end(row[column], ends)
                place = (file, f"{place_of(file, row)}, {column}")
                if bare != row[column]:
                    ended.append(place)
                if any(text in bare for text in control):
                    spelled.append(place)
    return [
        _check(
            "end_tokens_in_texts",
            f"no text ends in the end token's text ({', '.join(ends)}): every response is given its one end token",
            ended,
            "nothing needs doing: the spelled one is taken for the end token itself; better leave it out at the source",
        ),
        _check(
            "control_tokens_in_texts",
            "no text spells a control token of the tokenizer, such as " + ", ".join(control[:SHOWN_EXAMPLES]),
            spelled,
            "these are read as text like any other; if they were meant as turns of a chat, bring the turns as "
            "messages (language_model.chat_template), or put these into language_model.prompt_template",
        ),
    ]


def _check(name: str, expected: str, places: list[tuple[FileName, str]], remedy: str) -> Check:
    counts = Counter(file for file, _ in places)
    return Check(
        name=name,
        status="warning" if places else "ok",
        expected=expected,
        found=f"{len(places)} texts" + "".join(f", {count} of {file}" for file, count in counts.items()),
        value=len(places),
        limit=0,
        examples=[place for _, place in places[:SHOWN_EXAMPLES]],
        remedy=remedy,
    )
