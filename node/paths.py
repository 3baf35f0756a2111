"""Where a node keeps its things: one directory, its home, with a fixed name for each file in it.

`default_home` decides which directory that is when nobody says: CORTEX_HOME, else the user's data directory as the
platform has it. Nothing here touches the disk; who makes a file also sets its mode (everything secret is 0600).

Tests: tests/node/test_paths.py.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

HOME_VARIABLE = "CORTEX_HOME"

# sizeof(sockaddr_un.sun_path) less the closing zero byte: 108 on Linux, 104 on macOS and the BSDs.
MAX_SOCKET_PATH_BYTES = 107 if sys.platform == "linux" else 103


@dataclass(frozen=True, slots=True)
class Home:
    """The files of one node. `socket` serves the command line; `lock` holds the pid of the node that runs here."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "node.toml"

    @property
    def database(self) -> Path:
        return self.path / "cortex.db"

    @property
    def socket(self) -> Path:
        return self.path / "node.sock"

    @property
    def mcp_socket(self) -> Path:
        """For `cortex-node mcp` (mcp_edge/shim.py, which names it too)."""
        return self.path / "mcp.sock"

    @property
    def lock(self) -> Path:
        return self.path / "node.lock"

    @property
    def start_mark(self) -> Path:
        """node/startmark.py"""
        return self.path / "start"

    @property
    def ledger_mark(self) -> Path:
        """node/voting/mark.py"""
        return self.path / "ledger.mark"

    @property
    def token(self) -> Path:
        return self.path / "token"

    @property
    def key(self) -> Path:
        return self.path / "node.key"

    @property
    def certificate(self) -> Path:
        return self.path / "node.crt"

    @property
    def ca_certificate(self) -> Path:
        return self.path / "ca.crt"

    @property
    def ca_key(self) -> Path:
        """Only on the machine that founded the mesh."""
        return self.path / "ca.key"

    @property
    def agents(self) -> Path:
        """The folder of the agents' private keys: node/voting/keys.py"""
        return self.path / "agents"

    @property
    def secrets(self) -> tuple[Path, ...]:
        """What nobody but the owner may read."""
        return (self.key, self.ca_key, self.token, self.socket, self.mcp_socket)

    @property
    def founded(self) -> bool:
        """Whether `init` or `join` has been here."""
        return self.certificate.exists()


def default_home(environ: Mapping[str, str], user_home: Path, platform: str = sys.platform) -> Path:
    """The home when no --home is given: CORTEX_HOME, else `cortex-node` in the user's data directory.

    XDG Base Directory Specification 0.8: a relative XDG_DATA_HOME is to be ignored.
    """
    if told := environ.get(HOME_VARIABLE):
        return Path(told).expanduser()
    if platform == "darwin":
        return user_home / "Library" / "Application Support" / "cortex-node"
    data = Path(environ.get("XDG_DATA_HOME", ""))
    return (data if data.is_absolute() else user_home / ".local" / "share") / "cortex-node"
