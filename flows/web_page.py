"""How a page is served to people: on this machine's own address, or on another one behind a token."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from components.errors import ConfigError, EnvironmentFault

HOST = "127.0.0.1"
# Nobody is told of its use, no browser is opened, no file is watched, and nothing is offered but the page.
_QUIET = {
    "browser.gatherUsageStats": "false",
    "server.headless": "true",
    "server.fileWatcherType": "none",
    "client.toolbarMode": "minimal",
    "logger.level": "warning",
}


@dataclass(frozen=True)
class WebPage:
    """A page and where it is to be found.

    Args:
        command: that serves it.
        token: what people must know; the page finds it in its environment as `token_variable`.
    """

    command: str
    host: str
    port: int
    token: str | None = field(repr=False)
    token_variable: str

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{self.host}:{self.port}"

    def require(self) -> None:
        """Refuse what cannot be served.

        Raises:
            EnvironmentFault: Streamlit is not installed.
            ConfigError: the address is open to others and there is no token, is every address, or is taken.
        """
        if find_spec("streamlit") is None:
            raise EnvironmentFault(
                "the page is made with Streamlit, which is not installed",
                where=self.command,
                expected="the extra `label`",
                found="no module streamlit",
                do="run `pip install -c constraints.txt -e '.[label]'`",
            )
        where = f"--host {self.host} --port {self.port}"
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except (OSError, OverflowError) as fault:
            raise ConfigError("this is no address", where=where, found=str(fault)) from fault
        addresses = [ipaddress.ip_address(str(address[4][0])) for address in found]
        if any(address.is_unspecified for address in addresses):
            expected = "the address by which people reach this machine"
            raise ConfigError("this is every address", where="--host", expected=expected, found=self.host)
        if not self.token and not all(address.is_loopback for address in addresses):
            raise ConfigError(
                "others can reach this address",
                where=f"--host {self.host}",
                expected="a token with it",
                found="none",
                do=f"give one with --token, or in {self.token_variable}, which no list of processes shows",
            )
        with socket.socket(found[0][0]) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(found[0][4])
            except OSError as fault:
                do = "end what listens there, or name another port"
                raise ConfigError("nothing can be served there", where=where, found=str(fault), do=do) from fault

    def become(self, script: Path, *arguments: str) -> None:
        """Replace this process by Streamlit, which runs a script for everybody who opens the page."""
        address = {"server.address": self.host, "browser.serverAddress": self.host, "server.port": str(self.port)}
        if self.token:
            os.environ[self.token_variable] = self.token
        sys.stderr.flush()
        command = [sys.executable, "-m", "streamlit", "run", str(script)]
        command += [part for name, value in {**_QUIET, **address}.items() for part in (f"--{name}", value)]
        os.execv(sys.executable, [*command, "--", *arguments])
