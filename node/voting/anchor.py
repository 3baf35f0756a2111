"""Anchoring: the newest checkpoint stamped with a time by somebody who has nothing to do with this mesh (RFC 3161).

A time-stamping authority signs (SHA-256 of the checkpoint's text, its own clock). With that an outsider knows that the
ledger had this root no later than then, whoever holds the hubs' keys now. What is stamped is the text of the note - its
first three lines, with their line ends - so that signatures which are added later change nothing; what is kept is the
authority's whole answer, as `openssl ts -verify -in SIZE.tsr -data TEXT -CAfile TSA.pem` reads it.

The answer is believed here when it is granted, for this text and this question; whether the authority's certificate is
the right one is for whoever checks it (`stamped`, with the certificate that they trust). It needs the extra `anchor`,
which is imported when a stamp is asked for. Tests: tests/node/voting/test_anchor.py, against a local authority.
"""

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from ledger.checkpoint import Checkpoint
from node.breaker import Breaker, Refused, guarded
from node.clock import rfc3339
from node.database import Database
from node.errors import Problem
from node.voting import reads

if TYPE_CHECKING:
    from rfc3161_client import TimeStampRequest, TimeStampResponse

ANSWER_S: Final = 20.0
MAX_TOKEN_BYTES: Final = 64 * 1024
"""A stamp with its chain of certificates has 5 to 10 KiB."""
_GRANTED: Final = 0
_QUERY: Final = "application/timestamp-query"


class BadStamp(Exception):
    """A time stamp that does not say what it should, or was not signed by who should."""


class Anchor:
    """Has checkpoints stamped at `url`; empty: nobody is asked."""

    def __init__(self, url: str, database: Database, breaker: Breaker, now_ms: Callable[[], int]) -> None:
        self.breaker = breaker
        self._url = url
        self._database = database
        self._now_ms = now_ms

    async def stamp(self) -> dict[str, Any]:
        """The stamp of the newest checkpoint; made now, unless there is one.

        Raises Problem: anchor_unset, extra_missing, no_ledger, tsa_unreachable, tsa_refused.
        """
        if not self._url:
            raise Problem(
                409,
                "anchor_unset",
                "no time-stamping authority is set",
                "set `tsa_url` under [anchor] in node.toml to an RFC 3161 address, and restart the node",
            )
        client = _client()
        seen, _ = await self._database.read(reads.newest)
        if row := await self._database.read(lambda connection: _kept(connection, seen.size)):
            return _shown(seen.size, row)
        text = seen.text.encode()
        builder = client.TimestampRequestBuilder().data(text).hash_algorithm(client.HashAlgorithm.SHA256)
        query: TimeStampRequest = builder.nonce(nonce=True).cert_request(cert_request=True).build()
        token = await self._asked(query.as_bytes())
        try:
            _check_answer(client.decode_timestamp_response(token), query)
        except (ValueError, BadStamp) as error:
            action = "see whether anchor.tsa_url is an RFC 3161 authority that takes SHA-256"
            raise Problem(502, "tsa_refused", f"{self._url} gave no stamp: {error}", action) from None
        at_ms = self._now_ms()
        await self._database.write(lambda connection: _keep(connection, seen.size, token, at_ms))
        return _shown(seen.size, (token, at_ms))

    async def _asked(self, query: bytes) -> bytes:
        try:
            return await guarded(self.breaker, lambda: self._post(query), ANSWER_S)
        except (aiohttp.ClientError, OSError, Refused) as error:  # OSError: TimeoutError too
            detail = f"{self._url}: {str(error) or type(error).__name__}"
            action = "try again later; the ledger does not need it"
            raise Problem(
                503, "tsa_unreachable", f"the time-stamping authority gave no answer: {detail}", action
            ) from None

    async def _post(self, query: bytes) -> bytes:
        limits = aiohttp.ClientTimeout(total=ANSWER_S)
        async with (
            aiohttp.ClientSession(timeout=limits, auto_decompress=False) as session,
            session.post(self._url, data=query, headers={"Content-Type": _QUERY}, allow_redirects=False) as response,
        ):
            content = b""
            async for chunk in response.content.iter_any():
                content += chunk
                if len(content) > MAX_TOKEN_BYTES:
                    raise aiohttp.ClientPayloadError(f"an answer of more than {MAX_TOKEN_BYTES} bytes")
            if response.status != 200:
                raise aiohttp.ClientPayloadError(f"HTTP {response.status}")
            return content


def stamped(token: bytes, checkpoint: Checkpoint, certificate: bytes) -> str:
    """When the authority saw this checkpoint (RFC 3339), by its own clock. Raises BadStamp; Problem extra_missing.

    `certificate`: one or more certificates in PEM that are trusted: of the authority itself, or of who certified it.
    """
    from cryptography import x509

    client = _client()
    try:
        trusted = x509.load_pem_x509_certificates(certificate)
    except ValueError as error:
        raise Problem(400, "bad_certificate", f"not a certificate in PEM: {error}", "give the TSA's, in PEM") from None
    try:
        answer: TimeStampResponse = client.decode_timestamp_response(token)
        builder = client.VerifierBuilder()
        for one in trusted:
            builder = builder.add_root_certificate(one)
        builder.build().verify_message(answer, checkpoint.text.encode())
    except (ValueError, client.VerificationError) as error:
        raise BadStamp(str(error)) from None
    return rfc3339(round(answer.tst_info.gen_time.timestamp() * 1_000))


def _client() -> Any:
    try:
        import rfc3161_client
    except ImportError:
        raise Problem(
            409,
            "extra_missing",
            "time stamps need a library that is not installed",
            "pip install 'cortex-node[anchor]'",
        ) from None
    return rfc3161_client


def _check_answer(answer: "TimeStampResponse", query: "TimeStampRequest") -> None:
    """Raises BadStamp unless it answers this question."""
    if answer.status != _GRANTED:
        raise BadStamp(f"status {answer.status}: {'; '.join(answer.status_string)}")
    if answer.tst_info.nonce != query.nonce:
        raise BadStamp("it answers another question")
    if answer.tst_info.message_imprint.message != query.message_imprint.message:
        raise BadStamp("it stamps another text")


def _kept(connection: sqlite3.Connection, size: int) -> tuple[bytes, int] | None:
    row = connection.execute("SELECT token, at FROM ledger_anchors WHERE size = ?", (size,)).fetchone()
    return None if row is None else (row[0], row[1])


def _keep(connection: sqlite3.Connection, size: int, token: bytes, at_ms: int) -> None:
    connection.execute("INSERT OR IGNORE INTO ledger_anchors VALUES (?, ?, ?)", (size, token, at_ms))


def _shown(size: int, row: tuple[bytes, int]) -> dict[str, Any]:
    answer = _client().decode_timestamp_response(row[0])
    stamped_at = rfc3339(round(answer.tst_info.gen_time.timestamp() * 1_000))
    return {"size": size, "stamped_at": stamped_at, "asked_at": rfc3339(row[1]), "bytes": len(row[0])}
