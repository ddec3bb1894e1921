"""Settings of the embedded server."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from pidml.errors import ConfigError

MIB = 1024 * 1024


@dataclass(frozen=True)
class ServerSettings:
    """Where the server listens, keeps its data, and what it accepts.

    Attributes:
        data_dir: directory of the database and the uploaded files; made if absent.
        host: address to listen on; pages on anything but loopback need ``admin_token``.
        port: TCP port; 0 takes a free one.
        grid_dir: directory served as the embedded GRID below ``/grid/``; ``None`` serves none.
        admin_token: what a person types to see the pages; ``None`` leaves them open, on loopback only.
        max_upload_bytes: largest file of one result.
        max_body_bytes: largest request of a result, with everything around the file.
        max_json_bytes: largest JSON request.
        max_form_bytes: largest form sent from a page.
    """

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 8080
    grid_dir: Path | None = None
    admin_token: str | None = None
    max_upload_bytes: int = 512 * MIB
    max_body_bytes: int = 513 * MIB
    max_json_bytes: int = 64 * 1024
    max_form_bytes: int = 4 * MIB

    def check(self) -> None:
        """Raise :class:`ConfigError` for settings with which the server must not start."""
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port {self.port} is not between 0 and 65535", "give a port, or 0 for a free one")
        if not self.admin_token and not is_loopback(self.host):
            raise ConfigError(
                f"the server would show its pages to everybody who reaches {self.host}",
                "set an admin token for the pages, or listen on 127.0.0.1",
            )
        if self.admin_token is not None and len(self.admin_token) < 16:
            raise ConfigError("the admin token is shorter than 16 characters", "take a long random one")
        if self.grid_dir is not None and not self.grid_dir.is_dir():
            raise ConfigError(f"the GRID directory {self.grid_dir} is not a directory", "create it or name another")


def is_loopback(host: str) -> bool:
    """Tell whether ``host`` (a name or an address, without port) is this machine's loopback.

    >>> is_loopback("127.0.0.1"), is_loopback("[::1]"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, True, False)
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
