"""The route by which facts of an earlier system come in.

It is bulk work, so it waits while there is no room for that (node/pressure.py). What is stored, and when it is not
stored again: node/imports.py. Tests: tests/node/test_http_import.py.
"""

from collections.abc import Callable

from aiohttp import web

from node import imports
from node.http import Route, decode, reply
from node.imports import ImportedFacts, Imports


class ImportApi:
    """`refuse_bulk` raises a Problem while bulk work has to wait."""

    def __init__(self, taking: Imports, refuse_bulk: Callable[[], None]) -> None:
        self._imports = taking
        self._refuse_bulk = refuse_bulk

    def routes(self) -> list[Route]:
        """The calls that are answered here."""
        return [
            Route(
                "POST",
                "/v1/import",
                "import_facts",
                "Store facts of an earlier system under their old ids, with the votes counted there; never twice.",
                self.take,
                ImportedFacts,
                imports.ImportReport,
            )
        ]

    async def take(self, request: web.Request) -> web.Response:
        wanted = decode(await request.read(), ImportedFacts)
        self._refuse_bulk()
        return reply(await self._imports.take(wanted.facts))
