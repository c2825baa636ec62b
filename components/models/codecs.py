"""Codecs from what params and checkpoints say of text."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from components.config import LanguageModel
from components.data.rows import Demonstration
from components.errors import ConfigError
from components.models.checkpoint_tokenizer import load_checkpoint_tokenizer
from components.models.text import SCRATCH_CONTROL_TOKENS, Codec, TextFormat, train_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger("proximal")


def codec_of(
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_prompt_tokens: int,
    max_response_tokens: int,
    chat_template_options: Mapping[str, Any] | None = None,
    system_prompt: str | None = None,
) -> Codec:
    """A codec of a tokenizer that brings its own chat template, such as a stored scorer's.

    Raises:
        ConfigError: it brings none.
    """
    require_chat_template(tokenizer)
    text_format = TextFormat(
        None,
        max_prompt_tokens,
        max_response_tokens,
        chat_template_options=chat_template_options or {},
        system_prompt=system_prompt,
    )
    return Codec(tokenizer, text_format)


def checkpoint_codec(config: LanguageModel, stop_ids: tuple[int, ...] = ()) -> Codec:
    """The tokenizer of the checkpoint that params name, with their text format.

    Args:
        stop_ids: what ends a response beside the tokenizer's end token and the template's end of turn.
    Raises:
        ConfigError: the tokenizer cannot be used, or has no chat template where params ask for its own.
    """
    if config.chat_template is not None:
        return Codec(chat_tokenizer(config), _format_of(config, stop_ids))
    tokenizer = load_checkpoint_tokenizer(config)
    if tokenizer.chat_template is not None:
        logger.warning(
            "%s brings a chat template, and language_model.prompt_template (%r) is used instead: a model that was "
            'trained on chats reads its prompts as they are then; language_model.chat_template: "tokenizer" is its own',
            *(config.checkpoint, config.prompt_template),
        )
    return Codec(tokenizer, _format_of(config, stop_ids))


def chat_tokenizer(config: LanguageModel) -> PreTrainedTokenizerBase:
    """The checkpoint's tokenizer with the chat template of params.

    Raises:
        ConfigError: the tokenizer cannot be used, has no template of its own, or the template does not read an option.
    """
    tokenizer = load_checkpoint_tokenizer(config)
    if config.chat_template != "tokenizer":
        tokenizer.chat_template = config.chat_template
    require_chat_template(tokenizer)
    return _with_options(tokenizer, config)


def scratch_codec(config: LanguageModel, rows: Iterable[Demonstration]) -> Codec:
    """A tokenizer trained on the demonstrations as they are dressed, with the text format of params."""
    text_format, rows = _format_of(config), list(rows)
    size = config.scratch.vocabulary_size
    if config.chat_template is None:
        texts = [(config.prompt_template or "").replace("{prompt}", row.prompt) for row in rows]
        return Codec(train_tokenizer(texts + [row.response for row in rows], size), text_format)
    untrained = train_tokenizer([], size)
    untrained.chat_template = config.chat_template
    chat: Any = Codec(_with_options(untrained, config), text_format).template
    texts = [chat.template.render(chat.template.conversation(row.asked), is_open=True) for row in rows]
    control = re.compile("|".join(map(re.escape, SCRATCH_CONTROL_TOKENS)))
    texts = [part for text in texts for part in control.split(text)] + [row.response for row in rows]
    tokenizer = train_tokenizer(texts, size)
    tokenizer.chat_template = config.chat_template
    return Codec(tokenizer, text_format)


def require_chat_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises: ConfigError, the tokenizer has none."""
    if tokenizer.chat_template is None:
        raise ConfigError(
            "the checkpoint's tokenizer has no chat template",
            where="language_model.chat_template",
            expected=f"a chat template beside {tokenizer.name_or_path}",
            found="none",
            do="give a Jinja text there, or language_model.prompt_template with chat_template: null",
        )


def _format_of(config: LanguageModel, stop_ids: tuple[int, ...] = ()) -> TextFormat:
    if config.prompt_template is not None and "\\n" in config.prompt_template:
        logger.warning(
            "language_model.prompt_template holds a backslash and an n, two characters: in params.yaml they are a new "
            "line between double quotes only"
        )
    return TextFormat(
        config.prompt_template,
        config.max_prompt_tokens,
        config.max_response_tokens,
        stop_ids,
        copy.deepcopy(config.chat_template_options),
        config.system_prompt,
    )


def _with_options(tokenizer: PreTrainedTokenizerBase, config: LanguageModel) -> PreTrainedTokenizerBase:
    """Raises: ConfigError, the template does not read an option of params."""
    template = str(tokenizer.chat_template)
    unread = [name for name in config.chat_template_options if not re.search(rf"\b{re.escape(name)}\b", template)]
    if unread:
        raise ConfigError(
            "the chat template does not read an option",
            where="language_model.chat_template_options",
            expected="names that stand in the template",
            found=", ".join(unread),
            do="take them out, or correct the names",
        )
    return tokenizer
