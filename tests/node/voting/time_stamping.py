"""A time-stamping authority of our own: `openssl ts` behind a small HTTP server on loopback."""

import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

CONFIG = """
[tsa]
default_tsa = tsa1
[tsa1]
serial = {folder}/serial
signer_cert = {folder}/tsa.pem
signer_key = {folder}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
ess_cert_id_alg = sha256
[req]
distinguished_name = name
[name]
[v3_ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[v3_tsa]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, timeStamping
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


class Authority:
    """The authority in `folder`. `certificate`: what its users trust, in PEM. `spoil` may change what it answers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked = 0
        self.spoil = lambda answer: answer
        (folder / "openssl.cnf").write_text(CONFIG.format(folder=folder))
        self._openssl(*"req -x509 -newkey rsa:2048 -nodes -subj /CN=root -days 3650 -extensions v3_ca".split(),
                      "-keyout", "root.key", "-out", "root.pem")  # fmt: skip
        self._openssl(*"req -newkey rsa:2048 -nodes -subj /CN=tsa -keyout tsa.key -out tsa.csr".split())
        self._openssl(*"x509 -req -in tsa.csr -CA root.pem -CAkey root.key -CAcreateserial -days 3650".split(),
                      "-extfile", "openssl.cnf", "-extensions", "v3_tsa", "-out", "tsa.pem", config=False)  # fmt: skip

    @property
    def certificate(self) -> bytes:
        return (self.folder / "root.pem").read_bytes()

    def verify(self, token: Path, text: Path) -> bool:
        """Whether openssl, too, takes it for a stamp of this text."""
        done = subprocess.run(
            ["openssl", "ts", "-verify", "-in", token, "-data", text, "-CAfile", "root.pem"],
            cwd=self.folder, capture_output=True, check=False,
        )  # fmt: skip
        return done.returncode == 0

    async def answer(self, request: web.Request) -> web.Response:
        assert request.content_type == "application/timestamp-query"
        self.asked += 1
        (self.folder / "query.tsq").write_bytes(await request.read())
        self._openssl("ts", "-reply", "-queryfile", "query.tsq", "-out", "answer.tsr")
        answer = self.spoil((self.folder / "answer.tsr").read_bytes())
        return web.Response(body=answer, content_type="application/timestamp-reply")

    def _openssl(self, *words: str, config: bool = True) -> None:
        more = ["-config", "openssl.cnf"] if config else []
        subprocess.run(["openssl", *words, *more], cwd=self.folder, capture_output=True, check=True)


@asynccontextmanager
async def serving(authority: Authority) -> AsyncIterator[str]:
    """Its address."""
    app = web.Application()
    app.router.add_post("/tsa", authority.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/tsa"
    finally:
        await runner.cleanup()
