"""Templates are tried when they are loaded: what is wrong with one is said before anything is trained with it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from chats import CHATML, MADE, tokenizer_of

from components.errors import ConfigError
from components.models.chat import Chat
from components.models.chat_check import require_sound_template, takes_system_role
from components.models.text import Codec, TextFormat


def codec_of(family: str, template: str | None = None, **more: Any) -> Codec:
    tokenizer = tokenizer_of(family)
    if template is not None:
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.chat_template = template
    return Codec(tokenizer, TextFormat(None, 5, 2, **more))


@pytest.mark.parametrize("family", sorted(MADE))
def test_the_templates_of_every_family_are_sound(family: str) -> None:
    codec = codec_of(family)
    require_sound_template(codec, has_system_turns=False)
    assert isinstance(codec.template, Chat)
    assert takes_system_role(codec.template) is (family != "gemma")
    if family != "gemma":
        require_sound_template(codec_of(family, system_prompt="Be kind."), has_system_turns=True)


def test_a_system_turn_that_the_template_does_not_take_is_refused_where_there_are_some() -> None:
    with pytest.raises(ConfigError, match="takes no system turn") as caught:
        require_sound_template(codec_of("gemma"), has_system_turns=True)
    assert "System role not supported" in caught.value.found
    with pytest.raises(ConfigError, match="takes no system turn"):
        require_sound_template(codec_of("gemma", system_prompt="Be kind."), has_system_turns=False)
    silent = CHATML.replace(
        "{{'<|im_start|>' + message", "{% if message['role'] != 'system' %}{{'<|im_start|>' + message"
    )
    silent = silent.replace("{% endfor %}", "{% endif %}{% endfor %}")
    require_sound_template(codec_of("chatml", silent), has_system_turns=False)
    with pytest.raises(ConfigError, match="its text is left out"):
        require_sound_template(codec_of("chatml", silent), has_system_turns=True)


def test_a_template_that_lets_a_model_think_is_sound_without_and_refused_with_it() -> None:
    require_sound_template(codec_of("qwen3", chat_template_options={"enable_thinking": False}), has_system_turns=True)
    for options in ({}, {"enable_thinking": True}):
        with pytest.raises(ConfigError, match="does not round-trip") as caught:
            require_sound_template(codec_of("qwen3", chat_template_options=options), has_system_turns=False)
        assert "<think>" in caught.value.expected and "<think>" not in caught.value.found
        assert "enable_thinking: false" in caught.value.do


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("+ '<|im_end|>' + '\n'", "+ '\n'"), "does not end the assistant's turn"),
        (lambda text: text.replace("{{ '<|im_start|>assistant\n' }}", "{{ '<|im_start|>' }}"), "does not round-trip"),
        (lambda text: text.replace("'<|im_start|>assistant\n'", "'<|im_start|>model\n'"), "does not round-trip"),
        (lambda text: text.replace("message['content'] +", "message['content'] | upper +"), "does not"),
        (lambda text: text.replace("message['content'] +", "message['content'][:12] +"), "does not round-trip"),
        (lambda text: text + "{{ messages[6]['content'] }}{{ messages[9].x.y }}", "the chat template fails"),
    ],
)
def test_what_does_not_round_trip_is_refused(change: Callable[[str], str], said: str) -> None:
    template = change(CHATML)
    assert template != CHATML
    with pytest.raises(ConfigError, match=said) as caught:
        require_sound_template(codec_of("chatml", template), has_system_turns=False)
    assert caught.value.where == "language_model.chat_template"


def test_both_texts_around_the_first_difference_are_shown() -> None:
    """Only what the assistant said before is changed by this one, so that the tokens of a long dialogue differ."""
    template = CHATML.replace("message['content'] +", "(message['content'] | replace('Six', 'Seven')) +")
    with pytest.raises(ConfigError, match="does not round-trip") as caught:
        require_sound_template(codec_of("chatml", template), has_system_turns=False)
    expected, found = caught.value.expected, caught.value.found
    assert "<|im_end|>" in expected and "<|im_end|>" in found
    assert "Se" in expected.replace("', '", "") and "Six" in found.replace("', '", "")


def test_without_a_chat_template_nothing_is_asked() -> None:
    require_sound_template(Codec(tokenizer_of("gemma"), TextFormat("{prompt}", 5, 2)), has_system_turns=True)
