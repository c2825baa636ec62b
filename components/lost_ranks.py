"""What a rank says when another one is gone.

On one machine the launcher sees it, ends the others, and tells of the one that was killed. Of another machine's ranks
it sees nothing: there a rank finds that nobody is at the other end of a connection.
"""

from __future__ import annotations

import os

from components.errors import EnvironmentFault

LOST_STATUS = 75  # EX_TEMPFAIL in sysexits.h: what a rank exits with that was left alone
# Of gloo and NCCL, which raise plain RuntimeErrors, or classes of torch.distributed that are such.
_WORDS = (
    "connection closed by peer",
    "connection reset by peer",
    "broken pipe",
    "remote process exit",
    "socket timeout",
)
_CLASSES = ("DistNetworkError", "DistStoreError")


def is_of_a_lost_rank(fault: RuntimeError) -> bool:
    """Whether an error says that another rank is not there any more."""
    said = str(fault).lower()
    is_alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    return not is_alone and (type(fault).__name__ in _CLASSES or any(word in said for word in _WORDS))


def lost_rank(fault: RuntimeError) -> EnvironmentFault:
    """The error for people."""
    return EnvironmentFault(
        "another process of the stage is gone",
        where=f"rank {os.environ.get('RANK', '0')} of {os.environ.get('WORLD_SIZE', '1')}",
        expected="an answer from all processes until the end of the stage",
        found=" ".join(str(fault).split())[:300],
        do="look at what the stage says on the other machines; then start it on all of them again: it goes on from "
        "what was finished",
    )
