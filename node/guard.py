"""Who may call the API over TCP: whoever has the token, by a name that is this server's, from a page that is its own.

Host and Origin are checked besides the token because a browser sends what any page asks it to: a page somewhere on the
web can neither read a node's memory nor write to it, DNS rebinding included. Tests: tests/node/test_guard.py.
"""

import hmac
from collections.abc import Mapping
from typing import Final

from node.errors import Problem

OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})


class Guard:
    """Checks of every request. `hosts`: the names and addresses under which this server may be reached."""

    def __init__(self, token: str, hosts: frozenset[str]) -> None:
        self._token = token.encode()
        self._hosts = hosts

    def check(self, headers: Mapping[str, str], path: str) -> None:
        """Let a request pass, or raise the Problem that answers it. `headers` ignores case."""
        host = headers.get("Host", "").lower()
        if host.rpartition(":")[0] not in self._hosts and host not in self._hosts:
            raise Problem(403, "wrong_host", f"this server is not {host!r}", "use 127.0.0.1")
        origin = headers.get("Origin")
        if origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
            raise Problem(
                403, "wrong_origin", f"pages of {origin!r} may not call this node", "use the node's own pages"
            )
        if path in OPEN_PATHS:
            return
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(_bytes(token.strip()), self._token):
            raise Problem(
                401, "no_token", "the bearer token is missing or wrong", "send the token in the node's `token` file"
            )


def _bytes(header: str) -> bytes:
    """A header as it was sent: aiohttp makes lone surrogates of what is not UTF-8."""
    return header.encode(errors="surrogateescape")
