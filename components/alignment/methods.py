"""The rooms of the methods, each a package of its method's name."""

from __future__ import annotations

import importlib

from components.alignment.method import Room
from components.config import Method


def room_of(method: Method) -> Room:
    """The room of a method; only the chosen one is imported."""
    room: Room = importlib.import_module(f"components.alignment.{method}.learner").ROOM
    return room
