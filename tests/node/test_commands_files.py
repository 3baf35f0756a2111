"""Export and import against a scripted node: whole files only, nothing stored twice, bad lines told."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from node import jsonl
from node.commands import Answer
from node.commands_files import MAX_REPORTED
from node.errors import Problem
from tests.node.command_line import call_for, perform
from tests.node.cortex import Cortex
from tests.node.scripted_node import Asked, ScriptedNode, fact, listening, problem

Run = Callable[..., Answer]

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Memory:
    """Stores facts under ids of its own, and knows the Idempotency-Keys that it has seen."""

    def __init__(self) -> None:
        self.facts: list[dict[str, Any]] = []
        self.answers: dict[str, Any] = {}

    def store(self, asked: Asked) -> Any:
        key = asked.headers["Idempotency-Key"]
        if key in self.answers:
            return 200, self.answers[key]
        stored = []
        for draft in asked.body["facts"]:
            stored.append({"id": f"new-{len(self.facts)}", **draft})
            self.facts.append(draft)
        self.answers[key] = {"facts": stored}
        return 201, self.answers[key]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ScriptedNode]:
    with listening(tmp_path / "node.sock") as node:
        yield node


@pytest.fixture
def memory(node: ScriptedNode) -> Memory:
    memory = Memory()
    node.answer("POST", "/v1/facts", memory.store)
    return memory


@pytest.fixture
def run(node: ScriptedNode, tmp_path: Path) -> Run:
    def run(*words: str, stdin: bytes = b"", stdout: io.BytesIO | None = None) -> Answer:
        return perform(call_for(tmp_path, *words, stdin=io.BytesIO(stdin), stdout=stdout))

    return run


def write(path: Path, *entries: Any) -> str:
    path.write_text("".join((entry if isinstance(entry, str) else json.dumps(entry)) + "\n" for entry in entries))
    return str(path)


def test_an_export_is_what_the_node_sent(node: ScriptedNode, run: Run, tmp_path: Path) -> None:
    node.answer("GET", "/v1/export", HEAD + chunk(b'{"a": 1}\n') + chunk(b'{"b": 2}\n') + chunk(b""))
    target = tmp_path / "facts.jsonl"
    target.write_text("an earlier export\n")
    assert run("export", str(target)).document == {"file": str(target), "facts": 2}
    assert target.read_bytes() == b'{"a": 1}\n{"b": 2}\n'


def test_an_export_goes_to_stdout(node: ScriptedNode, run: Run) -> None:
    node.answer("GET", "/v1/export", HEAD + chunk(b'{"a": 1}\n') + chunk(b""))
    out = io.BytesIO()
    assert run("export", "-", stdout=out).show is None
    assert out.getvalue() == b'{"a": 1}\n'
    assert run("export", "-", "--json").document == {"facts": [{"a": 1}]}


def test_an_export_that_breaks_off_leaves_no_file_and_keeps_the_old_one(
    node: ScriptedNode, run: Run, tmp_path: Path
) -> None:
    node.answer("GET", "/v1/export", HEAD + chunk(b'{"a": 1}\n'))
    old = tmp_path / "old.jsonl"
    old.write_text("an earlier export\n")
    for target in (old, tmp_path / "new.jsonl"):
        with pytest.raises(Problem, match="broke the connection off"):
            run("export", str(target))
    assert old.read_text() == "an earlier export\n"
    assert {path.name for path in tmp_path.iterdir()} == {"old.jsonl", "node.sock"}


@pytest.mark.parametrize("target", ["missing/facts.jsonl", "node.sock/facts.jsonl", "."])
def test_an_export_to_where_it_cannot_be_is_refused(node: ScriptedNode, run: Run, tmp_path: Path, target: str) -> None:
    node.answer("GET", "/v1/export", HEAD + chunk(b""))
    with pytest.raises(Problem) as caught:
        run("export", str(tmp_path / target))
    assert caught.value.exit_code == 2
    assert {path.name for path in tmp_path.iterdir()} == {"node.sock"}


def test_an_import_stores_every_line_once(memory: Memory, run: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "log", {"text": "one"}, "", {"content": "two", "project": "home", "room": "b12"})
    assert run("import", "jsonl", path).document == {
        "stored": 2,
        "already_stored": 0,
        "links": 0,
        "bad_links": 0,
        "bad_lines": 0,
        "bad": [],
    }
    again = run("import", "jsonl", path).document
    assert (again["stored"], again["already_stored"]) == (0, 2)
    assert memory.facts == [{"content": "one"}, {"content": "two", "project": "home", "meta": {"room": "b12"}}]


def test_an_import_reads_stdin(memory: Memory, run: Run) -> None:
    run("import", "jsonl", "-", stdin=b'{"content": "one"}')
    assert memory.facts == [{"content": "one"}]


def test_an_import_goes_in_batches_that_the_node_takes(
    memory: Memory, node: ScriptedNode, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "node.toml").write_text("[limits]\nbatch = 400\n")
    run("import", "jsonl", write(tmp_path / "log", *({"content": str(n)} for n in range(1000))))
    assert [len(one.body["facts"]) for one in node.asked] == [400, 400, 200]
    assert [fact["content"] for fact in memory.facts] == [str(n) for n in range(1000)]


def test_nothing_is_stored_while_a_line_is_bad(memory: Memory, node: ScriptedNode, run: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "log", {"content": "one"}, "not json", {"content": ""}, {"content": "four"})
    answer = run("import", "jsonl", path)
    assert answer.code == 2
    assert [bad["line"] for bad in answer.document["bad"]] == [2, 3]
    assert not node.asked
    answer = run("import", "jsonl", path, "--skip-bad")
    assert answer.code == 0
    assert [fact["content"] for fact in memory.facts] == ["one", "four"]
    assert answer.document["bad_lines"] == 2


def test_many_bad_lines_are_counted_not_listed(run: Run, tmp_path: Path) -> None:
    document = run("import", "jsonl", write(tmp_path / "log", *["bad"] * 100)).document
    assert document["bad_lines"] == 100
    assert len(document["bad"]) == MAX_REPORTED


def test_links_are_made_between_the_new_facts(memory: Memory, node: ScriptedNode, run: Run, tmp_path: Path) -> None:
    links = [{"relation": "needs", "to": "b"}, {"relation": "see", "to": "elsewhere"}]
    node.answer(
        "POST",
        "/v1/facts/new-0/links",
        lambda asked: fact() if asked.body["to"] == "new-1" else (404, problem(404, "unknown_fact", "not here")),
    )
    document = run("import", "jsonl", write(tmp_path / "log", fact(id="a", links=links), fact(id="b"))).document
    assert (document["links"], document["bad_links"]) == (1, 1)
    assert node.asked[1].body == {"relation": "needs", "to": "new-1"}


def test_an_import_that_breaks_off_says_how_far_it_came(
    memory: Memory, node: ScriptedNode, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsonl, "BATCH_BYTES", 1)
    full = (507, problem(507, "full", "the disk is full", "free some space"))
    node.answer("POST", "/v1/facts", lambda asked: full if len(memory.facts) == 2 else memory.store(asked))
    path = write(tmp_path / "log", *({"content": str(n)} for n in range(4)))
    with pytest.raises(Problem) as caught:
        run("import", "jsonl", path)
    assert caught.value.exit_code == 5
    assert "2 facts are stored; repeat the import" in caught.value.action
    node.answer("POST", "/v1/facts", memory.store)
    assert run("import", "jsonl", path).document["already_stored"] == 2
    assert [fact["content"] for fact in memory.facts] == ["0", "1", "2", "3"]


def test_a_file_that_is_not_there(run: Run) -> None:
    with pytest.raises(Problem, match="No such file") as caught:
        run("import", "jsonl", "/nowhere/at/all")
    assert caught.value.exit_code == 2


# --- the earlier system ---


class Intake:
    """Counts as `POST /v1/import` does: a fact by its old id, a vote by fact and agent. `broken`: after how many."""

    def __init__(self) -> None:
        self.facts: dict[str, dict[str, Any]] = {}
        self.votes: set[tuple[str, str]] = set()
        self.batches: list[int] = []
        self.broken = 1_000

    def take(self, asked: Asked) -> Any:
        if len(self.batches) == self.broken:
            return 503, problem(503, "busy", "no memory to spare", "come again in a minute")
        drafts = asked.body["facts"]
        votes = {(draft["legacy_id"], vote["agent"]) for draft in drafts for vote in draft["votes"]}
        new = {draft["legacy_id"]: draft for draft in drafts if draft["legacy_id"] not in self.facts}
        fresh = votes - self.votes
        self.facts |= new
        self.votes |= votes
        self.batches.append(len(drafts))
        counts = {"stored": len(new), "already_stored": len(drafts) - len(new)}
        return 200, counts | {"ids": [], "votes": len(fresh), "already_voted": len(votes) - len(fresh)}


@pytest.fixture
def intake(node: ScriptedNode) -> Intake:
    intake = Intake()
    node.answer("POST", "/v1/import", intake.take)
    return intake


@pytest.fixture
def cortex(tmp_path: Path) -> Cortex:
    return Cortex(tmp_path / "cortex.db")


def test_an_earlier_database_comes_in_once(run: Run, intake: Intake, cortex: Cortex) -> None:
    first = cortex.fact()
    cortex.fact()
    cortex.vote(first, "ada", 1)
    cortex.vote(first, "bo", 0)
    cortex.vote(99, "bo", 1)
    cortex.agent("id", "ada")
    answer = run("import", "cortex", str(cortex.path))
    left_out = {"bad_votes": 1, "lone_votes": 1, "bad_facts": 0, "bad": [], "missing": [], "agents": 1}
    assert answer.code == 0
    assert answer.document == left_out | {"stored": 2, "already_stored": 0, "votes": 1, "already_voted": 0}
    assert intake.votes == {("1", "ada")}
    again = run("import", "cortex", str(cortex.path))
    assert again.document == left_out | {"stored": 0, "already_stored": 2, "votes": 0, "already_voted": 1}


def test_many_facts_come_in_batches(run: Run, intake: Intake, cortex: Cortex) -> None:
    cortex.connection.execute("BEGIN")
    for number in range(2_500):
        cortex.fact(f"fact {number}")
    cortex.connection.execute("COMMIT")
    assert run("import", "cortex", str(cortex.path)).document["stored"] == 2_500
    assert intake.batches == [1_000, 1_000, 500]


def test_a_bad_fact_stops_the_import_before_it_begins(run: Run, intake: Intake, cortex: Cortex) -> None:
    cortex.fact("good")
    for _ in range(MAX_REPORTED + 1):
        cortex.fact(" ")
    refused = run("import", "cortex", str(cortex.path))
    assert (refused.code, refused.document["bad_facts"], intake.facts) == (2, MAX_REPORTED + 1, {})
    assert len(refused.document["bad"]) == MAX_REPORTED
    assert refused.document["bad"][0]["id"] == "2"
    answer = run("import", "cortex", str(cortex.path), "--skip-bad")
    assert (answer.code, list(intake.facts)) == (0, ["1"])


def test_an_interrupted_import_says_how_far_it_came(run: Run, intake: Intake, cortex: Cortex) -> None:
    cortex.connection.execute("BEGIN")
    for number in range(1_001):
        cortex.fact(f"fact {number}")
    cortex.connection.execute("COMMIT")
    intake.broken = 1
    with pytest.raises(Problem) as caught:
        run("import", "cortex", str(cortex.path))
    assert caught.value.code == "busy"
    assert "1000 facts are stored; repeat the import" in caught.value.action
    intake.broken = 1_000
    report = run("import", "cortex", str(cortex.path)).document
    assert (report["stored"], report["already_stored"]) == (1, 1_000)
