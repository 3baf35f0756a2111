"""What a new connection must hear, and what the client hears of the one that broke. No write is made twice."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_edge.conversation import KEY, MAX_TIMES, REPLAYED, SENT_AGAIN, Conversation
from mcp_edge.lines import TooLong
from mcp_edge.tools import TOOLS

HELLO = {"method": "initialize", "id": 0, "params": {"protocolVersion": "2025-06-18"}}


def line(**message: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **message}).encode()


def call(name: str, number: int | str = 1, **arguments: Any) -> bytes:
    return line(id=number, method="tools/call", params={"name": name, "arguments": arguments})


def answer(number: int | str, **result: Any) -> bytes:
    return line(id=number, result=result)


def sent(talk: Conversation) -> list[Any]:
    """Everything that is queued for the node goes out."""
    queued, talk.to_node = talk.to_node, []
    for _, name in queued:
        talk.sent(name)
    return [json.loads(message) for message, _ in queued]


def heard(talk: Conversation) -> list[Any]:
    queued, talk.to_client = talk.to_client, []
    return [json.loads(message) for message in queued]


def attached() -> Conversation:
    """After the handshake."""
    talk = Conversation()
    talk.attached()
    talk.from_client(line(**HELLO))
    sent(talk)
    talk.from_node(answer(0))
    talk.from_client(line(method="notifications/initialized"))
    sent(talk)
    heard(talk)
    return talk


def test_every_tool_that_reads_is_sent_again_and_no_other_but_store() -> None:
    assert {tool.name for tool in TOOLS if tool.reads} | {"cortex_store"} == SENT_AGAIN


def test_messages_pass_in_order_and_unchanged() -> None:
    talk = attached()
    messages = [line(id=1, method="tools/list"), line(method="notifications/x"), b"not json"]
    for message in messages:
        talk.from_client(message)
    assert [message for message, _ in talk.to_node] == messages
    talk.from_node(answer(1, tools=[]))
    assert heard(talk) == [{"jsonrpc": "2.0", "id": 1, "result": {"tools": []}}]
    assert not talk.waiting


def test_a_new_connection_hears_the_handshake_first_and_the_client_not_again() -> None:
    talk = attached()
    talk.from_client(line(id=1, method="tools/list"))
    sent(talk)
    talk.attached()
    assert [message.get("method") for message in sent(talk)] == [
        "initialize",
        "notifications/initialized",
        "tools/list",
    ]
    talk.from_node(answer(REPLAYED))
    talk.from_node(answer(1))
    assert [message["id"] for message in heard(talk)] == [1]


def test_an_initialize_that_was_not_answered_is_simply_sent_again() -> None:
    talk = Conversation()
    talk.attached()
    talk.from_client(line(**HELLO))
    sent(talk)
    talk.attached()
    assert [message["id"] for message in sent(talk)] == [0]


def test_a_store_carries_one_key_however_often_it_is_sent() -> None:
    talk = attached()
    talk.from_client(call("cortex_store", content="x"))
    [first] = sent(talk)
    talk.attached()
    again = sent(talk)[-1]
    assert first["params"]["_meta"][KEY] == again["params"]["_meta"][KEY]
    talk.from_client(call("cortex_store", 2, content="x"))
    assert sent(talk)[-1]["params"]["_meta"][KEY] != first["params"]["_meta"][KEY]


@pytest.mark.parametrize("tool", ["cortex_update", "cortex_link", "cortex_vote", "no_such_tool"])
def test_a_write_that_may_have_happened_is_not_made_twice(tool: str) -> None:
    talk = attached()
    talk.from_client(call(tool, "n", id="a"))
    sent(talk)
    talk.attached()
    assert "tools/call" not in [message.get("method") for message in sent(talk)]
    [told] = heard(talk)
    assert told["id"] == "n"
    assert told["result"]["isError"]
    assert "not known" in told["result"]["content"][0]["text"]


def test_a_write_that_was_not_sent_whole_is_sent() -> None:
    talk = attached()
    talk.from_client(call("cortex_update", id="a"))
    talk.attached()
    assert [message.get("method") for message in sent(talk)][-1] == "tools/call"
    assert heard(talk) == []


def test_a_request_that_the_node_does_not_survive_is_given_up() -> None:
    talk = attached()
    talk.from_client(call("cortex_search", query="x"))
    for _ in range(MAX_TIMES - 1):
        sent(talk)
        talk.attached()
        assert not heard(talk)
    sent(talk)
    talk.attached()
    assert [message["id"] for message in heard(talk)] == [1]


def test_connections_that_break_before_it_was_sent_again_do_not_count() -> None:
    talk = attached()
    talk.from_client(call("cortex_search", query="x"))
    sent(talk)
    for _ in range(3 * MAX_TIMES):
        talk.lost()
        talk.attached()
    assert not heard(talk)
    assert sent(talk)[-1]["method"] == "tools/call"


def test_a_request_that_was_cancelled_is_not_sent_again() -> None:
    talk = attached()
    talk.from_client(call("cortex_search", query="x"))
    talk.from_client(line(method="notifications/cancelled", params={"requestId": 1}))
    talk.attached()
    assert "tools/call" not in [message.get("method") for message in sent(talk)]


def test_ids_of_different_types_are_different() -> None:
    talk = attached()
    talk.from_client(line(id=1, method="ping"))
    talk.from_client(line(id="1", method="ping"))
    talk.from_node(answer("1"))
    assert list(talk.waiting) == ["1"]


def test_a_message_that_is_too_long_is_answered_here() -> None:
    talk = attached()
    talk.from_client(TooLong(b'{"jsonrpc":"2.0","id":5,', b""))
    [told] = heard(talk)
    assert told["id"] == 5 and not talk.to_node


def test_when_all_is_lost_everybody_who_waits_is_told_why() -> None:
    talk = attached()
    talk.from_client(line(id=1, method="ping"))
    talk.fail("the disk is full")
    [told] = heard(talk)
    assert told["id"] == 1 and told["error"]["message"] == "the disk is full"


@given(st.lists(st.sampled_from(["ask", "store", "update", "send", "answer", "break"]), max_size=40))
def test_every_request_is_answered_once_and_no_update_is_sent_twice(steps: list[str]) -> None:
    talk, asked, number = attached(), set[int](), 0
    updates: list[int] = []
    answered: list[int] = []
    tools = {"ask": "cortex_get", "store": "cortex_store", "update": "cortex_update"}

    def deliver() -> None:
        updates.extend(m["id"] for m in sent(talk) if m.get("params", {}).get("name") == "cortex_update")

    for step in [*steps, "send", *["answer"] * 40]:
        match step:
            case "send":
                deliver()
            case "answer":
                for name in [name for name, request in talk.waiting.items() if request.sent][:1]:
                    talk.from_node(answer(int(name)))
            case "break":
                talk.lost()
                talk.attached()
            case kind:
                number += 1
                asked.add(number)
                talk.from_client(call(tools[kind], number))
        answered += [message["id"] for message in heard(talk)]
    assert sorted(answered) == sorted(asked)
    assert len(updates) == len(set(updates))
