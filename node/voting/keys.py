"""The private keys of this machine's agents: HOME/agents, a folder of 0700 with a file of 0600 for each key.

A file is PKCS #8 PEM like the node's own key (node/identity.py), named by its public key in hex. It is on disk before
anybody hears of the key, and it appears whole or not at all. Nothing is held in memory: a key that was put there or
taken away by hand counts from that moment on.

Whoever can read this folder can vote as these agents; on one machine they are one voice, which bounds what that does.
Agents that keep their key themselves have no file here. Tests: tests/node/voting/test_keys.py.
"""

import re
from pathlib import Path
from typing import Final

from ledger.ed25519 import KEY_BYTES
from node import identity
from node.errors import Problem

_NAME: Final = re.compile(f"[0-9a-f]{{{2 * KEY_BYTES}}}")


class KeyStore:
    """The keys in `folder`, which is made when the first one is. A secret is libsodium's 64 bytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[bytes, bytes] = {}

    def create(self) -> bytes:
        """A new key's secret, durable when this returns. Raises Problem home_unwritable."""
        seed = identity.new_seed()
        key, secret = identity.key_pair(seed)
        path = self._path(key)
        beside = path.with_name(f".{path.name}.new")
        try:
            self._make_folder()
            try:
                identity.write_private(beside, identity.seed_pem(seed))
                beside.replace(path)
            except BaseException:
                beside.unlink(missing_ok=True)
                raise
            identity.sync_folder(self.folder)
        except OSError as error:
            raise identity.unwritable(path, error) from error
        return secret

    def secret(self, key: bytes) -> bytes | None:
        """The secret of a public key; None when it is not here. Raises Problem: agent_key_damaged, secret_exposed."""
        path = self._path(key)
        if not path.exists():
            return None
        if (known := self._read.get(key)) is not None:
            return known
        try:
            found, secret = identity.key_pair(identity.read_seed(path))
        except Problem as problem:
            if problem.code != "home_damaged":
                raise
            raise _damaged(problem.detail) from None
        if found != key:
            raise _damaged(f"{path} holds another key than its name says")
        self._read[key] = secret
        return secret

    def keys(self) -> list[bytes]:
        """The public keys of which a file is here, unread."""
        if not self.folder.exists():
            return []
        return sorted(bytes.fromhex(path.name) for path in self.folder.iterdir() if _NAME.fullmatch(path.name))

    def remove(self, key: bytes) -> None:
        """Forget a secret, if it is here. Raises Problem home_unwritable."""
        path = self._path(key)
        self._read.pop(key, None)
        try:
            if path.exists():
                path.unlink()
                identity.sync_folder(self.folder)
        except OSError as error:
            raise identity.unwritable(path, error) from error

    def _make_folder(self) -> None:
        if not self.folder.exists():
            self.folder.mkdir(mode=0o700)
            identity.sync_folder(self.folder.parent)

    def _path(self, key: bytes) -> Path:
        return self.folder / key.hex()


def _damaged(detail: str) -> Problem:
    return Problem(
        500,
        "agent_key_damaged",
        detail,
        "restore the file from a backup; when it is lost, revoke the agent and add another one",
    )
