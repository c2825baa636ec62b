"""Whether conversations can be read: they need a template, and a wrong one is refused before SFT is paid for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from components.config import LanguageModel
from components.data_validation.reading import Row, place_of
from components.data_validation.schemas import FileName
from components.models.chat_check import require_sound_template
from components.models.codecs import chat_tokenizer
from components.models.prompt_template import no_chat_template
from components.models.text import Codec, TextFormat

_NO_LIMIT = 10**6


def require_readable_conversations(kept: Mapping[FileName, Sequence[Row]], config: LanguageModel) -> None:
    """See that the template of params takes what the data holds; of a scratch model SFT asks, with its tokenizer.

    Raises:
        ConfigError: there is none for conversations, or it fails, takes no system turns or does not round-trip.
    """
    conversations = [(file, row) for file, rows in kept.items() for row in rows if row.get("messages")]
    if config.chat_template is None:
        if conversations:
            raise no_chat_template(f"{len(conversations)} conversations, the first in {place_of(*conversations[0])}")
        return
    if config.checkpoint == "scratch":
        return
    text_format = TextFormat(
        None,
        _NO_LIMIT,
        _NO_LIMIT,
        chat_template_options=config.chat_template_options,
        system_prompt=config.system_prompt,
    )
    has_system_turns = any(row["messages"][0]["role"] == "system" for _, row in conversations)
    require_sound_template(Codec(chat_tokenizer(config), text_format), has_system_turns=has_system_turns)
