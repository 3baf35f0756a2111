"""The prompts that a user can pick in a client: `recall` what is known about a topic, `handoff` to whoever comes next.

A prompt carries what memory holds at that moment, marked as data, so that a model needs no tool call to begin.
Tests: tests/mcp_edge/test_prompts.py.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from mcp_edge import render
from mcp_edge.memory import Memory, MemoryProblem

HANDOFF_FACTS: Final = 20
"""What happened lately: about a working day."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt: `arguments` by name with their meaning; those in `required` must be given."""

    name: str
    description: str
    arguments: Mapping[str, str]
    required: frozenset[str]
    write: Callable[[Memory, Mapping[str, str]], Awaitable[str]]

    async def text(self, memory: Memory, given: Mapping[str, str]) -> str:
        """What is put before the model. Raises MemoryProblem."""
        for name in self.required - given.keys():
            raise MemoryProblem("missing_argument", f"{name} is missing", self.arguments[name], name)
        return await self.write(memory, given)


async def _recall(memory: Memory, given: Mapping[str, str]) -> str:
    project = {"project": given["project"]} if given.get("project") else {}
    answer = render.found(await memory.search({"query": given["topic"], "top_k": 20, **project}))
    return (
        f"Tell me what our shared memory knows about: {given['topic']}\n\n{answer.text}\n\n"
        "Sum up what is relevant and name the ids it rests on. Say where facts disagree or may be out of date, and what"
        " is missing. Use cortex_get for the history of a fact, cortex_search for more."
    )


async def _handoff(memory: Memory, given: Mapping[str, str]) -> str:
    project = given.get("project") or "default"
    listed = (await memory.list_facts(project, HANDOFF_FACTS))["facts"]
    return (
        f"Write the hand-over for whoever continues the work on project {project!r}.\n\n"
        f"The newest facts of the project:\n{render.facts(listed)}\n\n"
        "Compare them with what we did in this session. Then: store with cortex_store, one fact each, every decision,"
        " error and open question that is not there yet; correct with cortex_update what is no longer true; and store"
        " one fact of type event with the tag handoff that says where the work stands and what comes next, with the"
        " details in body. Store no secrets."
    )


PROMPTS: Final[tuple[Prompt, ...]] = (
    Prompt(
        "recall",
        "What the shared memory knows about a topic",
        {"topic": "what to recall", "project": "only this project"},
        frozenset({"topic"}),
        _recall,
    ),
    Prompt(
        "handoff",
        "Hand the work over: store what this session decided and where it stands",
        {"project": "the project; default when left out"},
        frozenset(),
        _handoff,
    ),
)
BY_NAME: Final = {prompt.name: prompt for prompt in PROMPTS}
