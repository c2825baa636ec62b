"""Who may see a page that Streamlit serves."""

from __future__ import annotations

import hmac
import os

import streamlit as st


def may_enter(variable: str) -> bool:
    """Whether whoever is here knows the token, where there is one; else it is asked for.

    Args:
        variable: of the environment, that holds the token.
    """
    token = os.environ.get(variable)
    if not token or st.session_state.get("entered"):
        return True
    given = st.text_input("Token", type="password")
    st.session_state["entered"] = hmac.compare_digest(given.encode(), token.encode())
    if st.session_state["entered"]:
        st.rerun()
    if given:
        st.error("That is another token.")
    return False
