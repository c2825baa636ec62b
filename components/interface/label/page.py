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
    if said := st.session_state.pop("said", None):
        st.warning(said)
    if waiting:
        _ask(waiting[0], annotator, labels)
    else:
        st.success("That was the last pair. Thank you.")


def _ask(pair: Pair, annotator: str, labels: Labels) -> None:
    def button(label: str, key: str, verdict: Verdict) -> None:
        # Named for its pair: a click that comes late is of the pair that was shown, and that has a label already.
        arguments = (labels, pair, annotator, verdict)
        st.button(label, f"{verdict}-{pair.id}", shortcut=key, width="stretch", on_click=_judge, args=arguments)

    st.subheader("Prompt")
    st.text(pair.prompt)
    for column, name, answer, key in zip(st.columns(2), ("A", "B"), pair.shown_to(annotator), ("1", "2"), strict=True):
        with column, st.container(border=True):
            st.subheader(name)
            st.text(answer.text)
            button(f"{name} is better", key, "A" if name == "A" else "B")
    tie, skip = st.columns(2)
    with tie:
        button("Tie", "0", "tie")
    with skip:
        button("Skip", "s", "skip")
    st.text_input("Why (if you like)", key=f"why-{pair.id}", max_chars=500)


def _judge(labels: Labels, pair: Pair, annotator: str, verdict: Verdict) -> None:
    try:
        fresh = labels.add(pair, annotator, verdict, st.session_state.get(f"why-{pair.id}", "").strip())
    except ProximalError as fault:
        st.session_state["said"] = f"This label is not kept. {fault}"
    else:
        if not fresh:
            st.session_state["said"] = "You have judged that pair before: the first label stays."


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
