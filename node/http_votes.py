"""The routes of votes and agents, with the guards and turns of node/http.py.

A vote takes its turn for the work, and waits for its entry without one: however many wait for a hub, facts are stored
and found meanwhile. Tests: tests/node/test_http_votes.py.
"""

from contextlib import AbstractAsyncContextManager, nullcontext

from aiohttp import web

from node.admission import Admission
from node.http import CLIENT, Route, decode, reply
from node.voting import shapes as s
from node.voting.agents import Agents
from node.voting.requests import AgentEnd, NewAgent, NewKey, NewVote
from node.voting.verbs import Votes


class VotesApi:
    """`routes` go into the table of the API."""

    def __init__(self, votes: Votes, agents: Agents, admission: Admission | None = None) -> None:
        self.votes = votes
        self.agents = agents
        self._admission = admission

    def routes(self) -> list[Route]:
        project = {"project": "whose reputation is shown; `default` when left out"}
        asked = {
            "agent": "whose `next_counter` is told, by name",
            "agent_key": "or by key, in hexadecimal",
            "version": "another version than the one that is shown",
        }
        return [
            Route(
                "POST", "/v1/facts/{id}/vote", "vote",
                "Vote on the version of a fact that is shown: 200 when committed, 202 while pending.",
                self.vote, NewVote, s.VoteAnswer,
            ),
            Route(
                "GET", "/v1/facts/{id}/votes", "votes", "The votes on a fact.",
                self.show_votes, None, s.FactVotes, asked,
            ),
            Route("GET", "/v1/agents", "agents", "The agents.", self.list_agents, None, s.AgentList, project),
            Route(
                "POST", "/v1/agents", "add_agent",
                "Enrol an agent of this node: 201, 200 when it is there. With `key`: 202 and what is to be signed.",
                self.add_agent, NewAgent, s.Agent | s.ToSign,
            ),
            Route("GET", "/v1/agents/{name}", "agent", "One agent.", self.show_agent, None, s.Agent, project),
            Route(
                "POST", "/v1/agents/{name}/rotate", "rotate_agent", "Give an agent a new key.",
                self.rotate_agent, NewKey, s.Agent | s.ToSign,
            ),
            Route(
                "POST", "/v1/agents/{name}/revoke", "revoke_agent", "End an agent; it votes no more.",
                self.revoke_agent, AgentEnd, s.Agent,
            ),
        ]  # fmt: skip

    async def vote(self, request: web.Request) -> web.Response:
        wanted = decode(await request.read(), NewVote)
        async with self._turn(request):
            cast = await self.votes.cast(request.match_info["id"], wanted)
        answer = await self.votes.settled(cast)
        return reply(answer, status=200 if answer["state"] == "committed" else 202)

    async def show_votes(self, request: web.Request) -> web.Response:
        asked = {name: request.query.get(name) for name in ("agent", "agent_key", "version")}
        return reply(await self.votes.votes(request.match_info["id"], **asked))

    async def list_agents(self, request: web.Request) -> web.Response:
        return reply(await self.agents.everybody(request.query.get("project")))

    async def add_agent(self, request: web.Request) -> web.Response:
        answer, made = await self.agents.add(decode(await request.read(), NewAgent))
        return reply(answer, status=201 if made else 202 if "to_sign" in answer else 200)

    async def show_agent(self, request: web.Request) -> web.Response:
        return reply(await self.agents.show(request.match_info["name"], request.query.get("project")))

    async def rotate_agent(self, request: web.Request) -> web.Response:
        wanted = decode(await request.read() or b"{}", NewKey)
        answer = await self.agents.rotate(request.match_info["name"], wanted)
        return reply(answer, status=202 if "to_sign" in answer else 200)

    async def revoke_agent(self, request: web.Request) -> web.Response:
        wanted = decode(await request.read() or b"{}", AgentEnd)
        return reply(await self.agents.revoke(request.match_info["name"], wanted))

    def _turn(self, request: web.Request) -> AbstractAsyncContextManager[None]:
        return nullcontext() if self._admission is None else self._admission.turn(request[CLIENT])
