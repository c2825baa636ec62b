"""Delivers a journal while its run goes on: the work never waits for the tracking store."""

from __future__ import annotations

import logging
import threading

from components.errors import EnvironmentFault
from components.tracking.delivery import deliver
from components.tracking.journal import Journal
from components.tracking.store import StoreAway

_SECONDS_BETWEEN = 1.0
_LONGEST_WAIT_S = 5.0  # between tries at a store that is away
_SLOW_S = 5.0
_LAST_ANSWER_S = 1.0

logger = logging.getLogger("proximal")


class Courier(threading.Thread):
    """A thread that delivers what is added to a journal, about once a second, until it is told to come to an end."""

    def __init__(self, journal: Journal, fault: EnvironmentFault | None = None) -> None:
        super().__init__(name="courier", daemon=True)  # a request that hangs does not keep the process
        self._journal = journal
        self._ending, self._given_up = threading.Event(), threading.Event()
        self._delivered = False
        self.fault = fault  # of the last try
        if fault is not None:
            self._warn(fault)

    def run(self) -> None:
        wait = _SECONDS_BETWEEN
        while not self._given_up.is_set():
            stop = self._given_up if self._ending.is_set() else self._ending
            stop.wait(wait)
            is_last = self._ending.is_set()
            self._journal.sync()
            try:
                deliver(self._journal)
            except EnvironmentFault as fault:
                if self.fault is None:
                    self._warn(fault)
                self.fault = fault
                wait = min(2 * wait, _LONGEST_WAIT_S) if not is_last else _SECONDS_BETWEEN
                if is_last and not isinstance(fault, StoreAway):
                    return  # asked again, it would refuse again
                continue
            if self.fault is not None:
                logger.info("%s: the tracking store answers again, and has all", self._journal.name)
            self.fault, wait = None, _SECONDS_BETWEEN
            if is_last:
                self._delivered = True
                return

    def end(self, patience_s: float) -> bool:
        """Deliver what is left, for some seconds at most; returns whether all was delivered.

        The journal is closed then, or gone; a request that hangs still has it until the process ends.
        """
        self._ending.set()
        self.join(patience_s)
        if self.fault is None:  # it answers, and takes its time
            self.join(_SLOW_S)
        self._given_up.set()
        self.join(_LAST_ANSWER_S)
        if not self.is_alive():
            self._journal.close(remove=self._delivered)
        return self._delivered

    def _warn(self, fault: EnvironmentFault) -> None:
        logger.warning(
            "%s: %s (%s); what is told is kept in %s, and the work goes on",
            *(self._journal.name, fault.what, fault.where, self._journal.path),
        )
