"""The page on which people talk to policies side by side, as Streamlit runs it: `chat_page.py -- ASKING POLICY...`.

Texts of people and policies are shown as they are, never as Markdown or HTML.
"""

from __future__ import annotations

import json
import sys
from typing import NamedTuple

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from components.data.rows import Message
from components.errors import ProximalError
from components.interface.asking import TOKEN_VARIABLE, Asking
from components.interface.chat import Streaming
from components.interface.entrance import may_enter
from components.interface.policies import policy_folder
from components.interface.together import answer_together

_CHARACTERS = 20_000  # of a message


class _Exchange(NamedTuple):
    """A message, and the answer of each policy."""

    message: str
    answers: list[str]


def main() -> None:
    """What one visitor sees now."""
    st.set_page_config(page_title="Chat", layout="wide")
    if not may_enter(TOKEN_VARIABLE):
        return
    asking, names = Asking(**json.loads(sys.argv[1])), sys.argv[2:]
    try:
        policies = [_read(name) for name in names]
    except ProximalError as fault:
        st.error("A policy cannot be read.")
        st.text(str(fault))
        return
    said: list[_Exchange] = st.session_state.setdefault("said", [])
    waiting: str | None = st.session_state.get("waiting")
    st.caption(f"Every answer: {asking.sentence()}")
    for column, name, policy in zip(st.columns(len(names)), names, policies, strict=True):
        with column:
            st.subheader(f"`{name}`", anchor=False)
            st.caption("reads the whole conversation" if policy.reads_conversations else "reads every message alone")
    for exchange in said:
        for place, answer in zip(_places(exchange.message, names), exchange.answers, strict=True):
            place.text(answer)
    if told := st.session_state.pop("fault", None):
        st.error("That message was not answered.")
        st.text(told)
    # One message at a time: another one would cut the answers off.
    st.chat_input("Say something", max_chars=_CHARACTERS, disabled=bool(waiting), key="typed", on_submit=_take)
    if waiting:
        _answer(waiting, names, policies, said, asking)
        st.rerun()
    if said:
        st.button("New conversation", on_click=said.clear)


def _take() -> None:
    st.session_state["waiting"] = st.session_state["typed"].strip()


def _answer(message: str, names: list[str], policies: list[Streaming], said: list[_Exchange], asking: Asking) -> None:
    places = _places(message, names)
    shown = [""] * len(policies)

    def tell(number: int, part: str) -> None:
        shown[number] += part
        places[number].text(shown[number])

    asked = [_asked(message, number, policy, said) for number, policy in enumerate(policies)]
    try:
        answers = answer_together(policies, asked, asking, tell)
    except ProximalError as fault:
        st.session_state["fault"] = f"{message}\n\n{fault}"
    else:
        said.append(_Exchange(message, answers))
    del st.session_state["waiting"]


def _asked(message: str, number: int, policy: Streaming, said: list[_Exchange]) -> str | list[Message]:
    """What a policy reads: its own side of the conversation where it reads conversations."""
    if not policy.reads_conversations:
        return message
    turns: list[Message] = []
    for exchange in said:
        turns += [Message(role="user", content=exchange.message)]
        turns += [Message(role="assistant", content=exchange.answers[number])]
    return [*turns, Message(role="user", content=message)]


def _places(message: str, names: list[str]) -> list[DeltaGenerator]:
    """Show a message, and make the places of its answers below."""
    with st.chat_message("user"):
        st.text(message)
    places = []
    for column, name in zip(st.columns(len(names)), names, strict=True):
        with column, st.container(border=True):
            st.caption(f"`{name}`")  # which the heading far above, or on a narrow screen, does not tell
            places.append(st.empty())
    return places


@st.cache_resource(show_spinner="Reading the policies")
def _read(name: str) -> Streaming:
    with policy_folder(name) as folder:
        return Streaming(folder)


if __name__ == "__main__":
    main()
