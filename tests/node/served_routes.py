"""Routes of one module behind the guards of the API, on loopback TCP, without a node around them."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec

from node import shapes
from node.admission import Admission
from node.http import Api, Route
from node.metrics import Metrics
from tests.node.served_app import served_app

TOKEN = "a-token"


@asynccontextmanager
async def served_routes(
    routes: Sequence[Route], admission: Admission | None = None
) -> AsyncIterator[aiohttp.ClientSession]:
    """A client whose paths lead to `routes`; it has to show TOKEN."""
    nobody: Any = None
    api = Api(nobody, nobody, nobody, Metrics(), TOKEN, nobody, admission, more=routes)
    async with served_app(api.application("tcp", frozenset({"127.0.0.1"}))) as client:
        yield client


async def call(
    client: aiohttp.ClientSession, method: str, path: str, body: Any = None, token: str = TOKEN
) -> tuple[int, Any]:
    """A request, and the document that answers it; a problem is held against its shape."""
    headers = {"Authorization": f"Bearer {token}"}
    async with client.request(method, path, json=body, headers=headers) as answer:
        raw = await answer.read()
        if answer.status >= 400:
            problem = msgspec.json.decode(raw, type=shapes.Error)
            assert problem.status == answer.status and problem.detail and problem.action
        return answer.status, json.loads(raw)
