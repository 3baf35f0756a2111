"""What a client and the node have said to each other, and what is still owed: all that outlives a connection.

The pipe (mcp_edge/shim.py) carries it. When the connection to the node breaks, `attached` says what a new one must hear
first: the client's `initialize`, whose second answer is kept from the client, and what was under way. No write is made
twice:

* a request that the node has not got whole is sent;
* one that only reads is sent again, and so is a store, which carries a key under which the node stores it once;
* any other is answered: whether the change was made is not known, and the model is told to look.

No I/O here; of the standard library alone. Tests: tests/mcp_edge/test_conversation.py.
"""

import json
import os
import re

from mcp_edge.lines import INTERNAL_ERROR, TooLong, error, too_long

KEY = "cortex-node/key"
"""In `_meta` of a store: the key under which the node stores it once (its Idempotency-Key)."""
STORE = "cortex_store"
SENT_AGAIN = frozenset({STORE, "cortex_search", "cortex_get", "cortex_status", "cortex_ledger_verify"})
"""Tools that may run twice. Of a tool that is not here it is not known."""
MAX_TIMES = 3
"""A request that the node did not live through so often is not sent again."""
REPLAYED = "cortex-node/replayed-initialize"
"""The id of an `initialize` that the client has had answered before."""

_ANSWERS = re.compile(
    rb'\s*\{\s*"jsonrpc"\s*:\s*"2\.0"\s*,\s*"id"\s*:\s*(-?\d+|"(?:[^"\\]|\\.)*")\s*,\s*"(?:result|error)"'
)

Id = str  # the JSON of a request's id: to Python 1, 1.0 and True are one


class Request:
    """A request that awaits its answer. `sent`: the node may have acted on it."""

    __slots__ = ("line", "may_repeat", "sent", "times")

    def __init__(self, line: bytes, may_repeat: bool) -> None:
        self.line = line
        self.may_repeat = may_repeat
        self.sent = False
        self.times = 0


class Conversation:
    """What is said and what is owed: all that must outlive a connection. No I/O."""

    def __init__(self) -> None:
        self.waiting: dict[Id, Request] = {}
        self.to_node: list[tuple[bytes, Id | None]] = []
        self.to_client: list[bytes] = []
        self._initialize: bytes | None = None
        self._initialize_id: Id | None = None
        self._initialized: bytes | None = None

    def from_client(self, line: bytes | TooLong) -> None:
        """Take one message of the client."""
        if isinstance(line, TooLong):
            self.to_client.append(too_long(line))
            return
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            message = None  # the node says what is wrong with it
        method = message.get("method") if isinstance(message, dict) else None
        if not isinstance(message, dict) or not isinstance(method, str):
            self.to_node.append((line, None))
        elif not isinstance(message.get("id"), str | int):
            self._notified(method, message, line)
            self.to_node.append((line, None))
        else:
            name = json.dumps(message["id"])
            if method == "initialize":
                self._initialize, self._initialize_id = json.dumps(message | {"id": REPLAYED}).encode(), name
            line, may_repeat = _repeatable(method, message, line)
            self.waiting[name] = Request(line, may_repeat)
            self.to_node.append((line, name))

    def _notified(self, method: str, message: dict[str, object], line: bytes) -> None:
        params = message.get("params")
        if method == "notifications/initialized":
            self._initialized = line
        elif method == "notifications/cancelled" and isinstance(params, dict):
            self.waiting.pop(json.dumps(params.get("requestId")), None)  # it will not be answered

    def from_node(self, line: bytes | TooLong) -> None:
        """Take one message of the node."""
        if isinstance(line, TooLong):
            raise AssertionError("answers have no limit here")
        if found := _ANSWERS.match(line):
            name = json.dumps(json.loads(found[1]))
            if name == json.dumps(REPLAYED):
                return
            self.waiting.pop(name, None)
        self.to_client.append(line)

    def sent(self, name: Id | None) -> None:
        """A message went to the node whole."""
        if name in self.waiting:
            self.waiting[name].sent = True

    def lost(self) -> None:
        """The connection broke. Only requests are told again: the rest was for the node that is gone."""
        self.to_node.clear()

    def attached(self) -> None:
        """A connection to the node stands: what it must hear first is queued."""
        unsent = [(line, name) for line, name in self.to_node if name is None]
        self.to_node.clear()
        if self._initialize is not None and self._initialize_id not in self.waiting:
            self.to_node.append((self._initialize, None))
            if self._initialized is not None:
                self.to_node.append((self._initialized, None))
        for name, request in list(self.waiting.items()):
            request.times += request.sent
            if request.sent and (not request.may_repeat or request.times >= MAX_TIMES):
                del self.waiting[name]
                self.to_client.append(_unknown_outcome(name))
            else:
                request.sent = False
                self.to_node.append((request.line, name))
        self.to_node += unsent

    def fail(self, why: str) -> None:
        """Answer everything that waits with an error."""
        self.to_client += [error(name, INTERNAL_ERROR, why) for name in self.waiting]
        self.waiting.clear()
        self.to_node.clear()


def _repeatable(method: str, message: dict[str, object], line: bytes) -> tuple[bytes, bool]:
    """The request as it is sent, and whether it may be sent twice. A store gets its key here."""
    params = message.get("params")
    if method != "tools/call" or not isinstance(params, dict):
        return line, True
    tool = params.get("name")
    meta = params.get("_meta") or {}
    if tool == STORE and isinstance(meta, dict):
        params["_meta"] = {KEY: os.urandom(16).hex()} | meta
        return json.dumps(message).encode(), True
    return line, tool in SENT_AGAIN


def _unknown_outcome(name: Id) -> bytes:
    """A result, not a protocol error: the model is to see it, and can find out."""
    text = (
        "The node was restarted during this call; whether the change was made is not known. "
        "What to do: look with cortex_get, and repeat the call only if the change is missing."
    )
    result = {"content": [{"type": "text", "text": text}], "isError": True, "resultType": "complete"}
    return f'{{"jsonrpc":"2.0","id":{name},"result":{json.dumps(result)}}}'.encode()
