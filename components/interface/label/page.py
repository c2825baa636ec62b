"""The page on which people compare two answers, as Streamlit runs it: `streamlit run page.py -- QUEUE LABELS`.

What it says is on the disk. Texts of prompts and policies are shown as they are, never as Markdown or HTML.
"""

from __future__ import annotations

import sys
from pathlib import Path

import streamlit as st

from components.errors import ProximalError
from components.interface.entrance import may_enter
from components.interface.label import TOKEN_VARIABLE
from components.interface.label.labels import Labels, Verdict, agreement
from components.interface.label.pairs import Pair, Queue

_NAME_CHARACTERS = 40
_KEYS = Path(__file__).with_name("keys.html")
# In the order in which they stand; keys.html presses them by their verdicts.
_BUTTONS: tuple[tuple[str, Verdict], ...] = (
    ("A is better (1)", "A"),
    ("B is better (2)", "B"),
    ("Tie (0)", "tie"),
    ("Skip (s)", "skip"),
)


def main() -> None:
    """What one annotator sees now."""
    st.set_page_config(page_title="Label", layout="wide")
    if not may_enter(TOKEN_VARIABLE) or not (annotator := _annotator()):
        return
    queue, labels = _opened(sys.argv[1], sys.argv[2])
    rows = labels.all()
    judged = {row["pair"]: row["label"] for row in rows if row["annotator"] == annotator}
    waiting = [pair for pair in queue.pairs if pair.id not in judged]
    done = len(queue.pairs) - len(waiting)
    st.progress(done / len(queue.pairs), text=f"{annotator}: {done} of {len(queue.pairs)} pairs judged")
    st.caption(f"Agreement: {agreement(rows)}")
    if not _listens():
        return
    if said := st.session_state.pop("said", None):
        st.warning(said)
    if waiting:
        _ask(waiting[0], annotator, labels)
    else:
        st.success("That was the last pair. Thank you.")


def _ask(pair: Pair, annotator: str, labels: Labels) -> None:
    def button(label: str, verdict: Verdict) -> None:
        # Named for its pair: a click that comes late is of the pair that was shown, and that has a label already.
        arguments = (labels, pair, annotator, verdict)
        st.button(label, f"{verdict}-{pair.id}", width="stretch", on_click=_judge, args=arguments)

    with st.container(key="pair"):
        with st.container(key=f"prompt-{pair.id}"):  # the first and the last part name the pair: keys.html looks there
            for turn in pair.messages or [{"role": "user", "content": pair.prompt}]:
                with st.chat_message(turn["role"]):
                    st.text(turn["content"])
        for column, name, answer in zip(st.columns(2), "AB", pair.shown_to(annotator), strict=True):
            with column, st.container(border=True, height="stretch", key=f"answer-{name}"):
                st.subheader(name, anchor=False)
                st.text(answer.text)
        for column, (label, verdict) in zip(st.columns(4), _BUTTONS, strict=True):
            with column:
                button(label, verdict)
        st.text_input("Why (if you like)", key=f"why-{pair.id}", max_chars=500)


def _judge(labels: Labels, pair: Pair, annotator: str, verdict: Verdict) -> None:
    try:
        fresh = labels.add(pair, annotator, verdict, st.session_state.get(f"why-{pair.id}", "").strip())
    except ProximalError as fault:
        st.session_state["said"] = f"This label is not kept. {fault}"
    else:
        if not fresh:
            st.session_state["said"] = "You have judged that pair before: the first label stays."


def _listens() -> bool:
    """Whether keys work by now. Only then is a pair shown.

    Texts come with the page; buttons, and the script that listens to keys, are loaded after it: a key that is pressed
    before is lost. When both are there, the script presses a button that says so.
    """
    st.html(_KEYS, unsafe_allow_javascript=True)
    if not st.session_state.get("listens"):
        st.button("Begin", "listens-now", on_click=lambda: st.session_state.update(listens=True))
    return bool(st.session_state.get("listens"))


def _annotator() -> str:
    """Who judges; the address keeps the name, so that a reload goes on."""
    if name := st.query_params.get("annotator", "").strip()[:_NAME_CHARACTERS]:
        return name
    with st.form("who"):
        name = st.text_input("Your name", max_chars=_NAME_CHARACTERS).strip()
        if st.form_submit_button("Begin") and name:
            st.query_params["annotator"] = name
            st.rerun()
    return ""


@st.cache_resource
def _opened(queue: str, labels: str) -> tuple[Queue, Labels]:
    return Queue.read(Path(queue)), Labels(Path(labels))


if __name__ == "__main__":
    main()
