"""The earlier system's database: what becomes of each column, of what is missing, and that it is only read."""

import stat
from pathlib import Path
from typing import Any

import pytest

from node import imports
from node.errors import Problem
from node.import_cortex import BATCH_BYTES, BadFact, Old, batches, opened
from node.requests import Limits
from tests.node.cortex import THEN, Cortex

SINCE = "2026-01-10T10:00:00.000Z"


@pytest.fixture
def cortex(tmp_path: Path) -> Cortex:
    return Cortex(tmp_path / "cortex.db")


def read(cortex: Cortex, limits: Limits | None = None) -> list[Old | BadFact]:
    with opened(cortex.path) as old:
        return list(old.facts(limits or Limits()))


def draft(cortex: Cortex) -> dict[str, Any]:
    (old,) = read(cortex)
    assert isinstance(old, Old), old
    (only,) = old.drafts
    return only


def test_a_fact_as_it_was(cortex: Cortex) -> None:
    number = cortex.fact(
        "The hub is in room 4", fact_type="decision", tags='["hub", "rooms"]', confidence="C3", source="cli",
        meta='{"by": "ada"}',
    )  # fmt: skip
    cortex.vote(number, "bo", 1)
    assert draft(cortex) == {
        "legacy_id": "1",
        "content": "The hub is in room 4",
        "project": "home",
        "fact_type": "decision",
        "tags": ["hub", "rooms"],
        "confidence": "C3",
        "source": "cli",
        "valid_from": SINCE,
        "meta": {"by": "ada", "imported": {"system": "cortex", "id": "1", "created_at": SINCE}},
        "votes": [{"agent": "bo", "value": 1, "time": SINCE}],
    }


def test_a_deprecated_fact_is_retracted(cortex: Cortex) -> None:
    cortex.deprecate(cortex.fact(), "updated_by_7")
    found = draft(cortex)
    assert (found["retracted"], found["retracted_reason"]) == (True, "updated_by_7")
    assert found["valid_until"] == "2026-02-01T00:00:00.000Z"


def test_a_fact_that_has_only_ended_is_not_retracted(cortex: Cortex) -> None:
    cortex.fact(valid_until="2026-02-01")
    found = draft(cortex)
    assert "retracted" not in found and found["valid_until"] == "2026-02-01T00:00:00.000Z"


def test_a_fact_of_a_single_second_keeps_its_end(cortex: Cortex) -> None:
    cortex.fact(valid_until=THEN)
    found = draft(cortex)
    assert "valid_from" not in found
    assert found["meta"]["imported"]["valid_from"] == found["valid_until"] == SINCE


@pytest.mark.parametrize(
    ("column", "value", "field", "becomes"),
    [
        ("tags", "a, b,,", "tags", ["a", "b"]),
        ("tags", "", "tags", []),
        ("tags", '["a", 7, " "]', "tags", ["a", "7"]),
        ("tags", '"alone"', "tags", ["alone"]),
        ("source", "", "source", None),
        ("valid_from", "yesterday", "valid_from", None),
        ("valid_from", "2026-01-10T10:00:00+02:00", "valid_from", "2026-01-10T08:00:00.000Z"),
    ],
)
def test_what_a_column_becomes(cortex: Cortex, column: str, value: str, field: str, becomes: Any) -> None:
    cortex.fact(**{column: value})
    assert draft(cortex).get(field) == becomes


@pytest.mark.parametrize(
    ("meta", "kept", "origin"),
    [
        ("not json", {}, {"meta": "not json"}),
        ("[1]", {}, {"meta": "[1]"}),
        ('{"imported": "by hand", "a": 1}', {"a": 1}, {"imported": "by hand"}),
        (None, {}, {}),
        ("", {}, {}),
    ],
)
def test_what_meta_becomes(cortex: Cortex, meta: Any, kept: Any, origin: Any) -> None:
    cortex.fact(meta=meta)
    found = draft(cortex)["meta"]
    assert found.pop("imported") == {"system": "cortex", "id": "1", "created_at": SINCE} | origin
    assert found == kept


def test_votes_are_under_names(cortex: Cortex) -> None:
    first, second = cortex.fact(), cortex.fact()
    for id_, name in (("id-one", "ada"), ("id-two-and-more", "twin"), ("id-three", "twin")):
        cortex.weighted_vote(first, cortex.agent(id_, name), -1)
    cortex.weighted_vote(second, "unknown-id", 1)
    cortex.vote(second, "human", 1)
    with opened(cortex.path) as old:
        names = [[vote["agent"] for piece in fact.drafts for vote in piece["votes"]]
                 for fact in old.facts(Limits()) if isinstance(fact, Old)]  # fmt: skip
        assert old.agents == 3
        assert [sorted(those) for those in names] == [
            ["ada", "twin (id-three)", "twin (id-two-a)"], ["human", "unknown-id"]
        ]  # fmt: skip


def test_votes_that_cannot_be_kept_are_counted(cortex: Cortex) -> None:
    number = cortex.fact()
    for agent, value in (("ada", 1), ("bo", 0), ("cy", 2), ("", 1), ("x" * 129, 1), ("a\nb", 1), ("dee", "up")):
        cortex.vote(number, agent, value)
    cortex.vote(99, "ada", 1)
    cortex.weighted_vote(98, "ada", 1)
    with opened(cortex.path) as old:
        (fact,) = old.facts(Limits())
        assert isinstance(fact, Old)
        assert [vote["agent"] for vote in fact.drafts[0]["votes"]] == ["ada"]
        assert (old.bad_votes, old.lone_votes()) == (6, 2)
        list(old.facts(Limits()))
        assert old.bad_votes == 6, "reading again counts anew"


def test_a_fact_with_many_votes_comes_in_pieces(cortex: Cortex) -> None:
    number = cortex.fact()
    cortex.connection.execute("BEGIN")
    for voter in range(imports.MAX_VOTES + 1):
        cortex.vote(number, f"agent {voter}", 1)
    cortex.connection.execute("COMMIT")
    (old,) = read(cortex)
    assert isinstance(old, Old)
    assert [len(piece["votes"]) for piece in old.drafts] == [imports.MAX_VOTES, 1]
    assert len({piece["content"] for piece in old.drafts}) == 1


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"content": " "}, "content is empty"),
        ({"content": "x" * 65_537}, "65,537 bytes"),
        ({"content": b"\x00"}, "Expected `str`"),
        ({"content": "v6_aesgcm:abc"}, "encrypted"),
        ({"project": "_mesh"}, "reserved"),
        ({"tags": f'["{"x" * 129}"]'}, "tags has 129 bytes"),
    ],
)
def test_a_fact_that_does_not_fit_is_told(cortex: Cortex, more: dict[str, Any], says: str) -> None:
    cortex.fact("good")
    cortex.fact(**more)
    good, bad = read(cortex)
    assert isinstance(good, Old) and isinstance(bad, BadFact)
    assert bad.id == "2" and says in bad.error


def test_a_later_version_has_other_columns(tmp_path: Path) -> None:
    cortex = Cortex(
        tmp_path / "later.db",
        "CREATE TABLE facts (id INTEGER PRIMARY KEY, content TEXT, project TEXT, metadata TEXT, is_tombstoned INTEGER);"
        "CREATE TABLE consensus_votes_v2 (fact_id INTEGER, vote INTEGER);",
    )
    cortex.insert("facts", content="gone", project="p", metadata='{"k": 1}', is_tombstoned=1)
    cortex.insert("facts", content="plain")
    with opened(cortex.path) as old:
        gone, plain = old.facts(Limits())
        assert isinstance(gone, Old) and isinstance(plain, Old)
        assert gone.drafts[0]["retracted"] and gone.drafts[0]["meta"]["k"] == 1
        assert plain.drafts[0].keys() == {"legacy_id", "content", "tags", "meta", "votes"}
        assert old.lone_votes() == 0
        assert set(old.missing) == {
            "facts.fact_type", "facts.tags", "facts.confidence", "facts.source", "facts.valid_from",
            "facts.valid_until", "facts.created_at", "agents", "consensus_votes", "consensus_votes_v2.agent_id",
            "consensus_votes_v2.created_at",
        }  # fmt: skip


@pytest.mark.parametrize(
    ("schema", "says"),
    [("CREATE TABLE notes (id);", "no table facts"), ("CREATE TABLE facts (id);", "no column content")],
)
def test_another_database_is_refused(tmp_path: Path, schema: str, says: str) -> None:
    with pytest.raises(Problem, match=says), opened(Cortex(tmp_path / "other.db", schema).path):
        pass


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no database, though longer than the hundred bytes of a header" * 10)
    for path, code in (
        (tmp_path / "notes.txt", "unreadable_database"),
        (tmp_path / "none", "file"),
        (tmp_path, "file"),
    ):
        with pytest.raises(Problem) as caught, opened(path):
            pass
        assert caught.value.code == code and caught.value.action


def test_a_damaged_page_is_a_problem_not_a_traceback(cortex: Cortex) -> None:
    for number in range(200):
        cortex.fact(f"fact {number} " * 50)
    cortex.connection.close()
    with cortex.path.open("r+b") as file:
        file.seek(8 * 4_096)
        file.write(b"\xff" * 30_000)
    with pytest.raises(Problem, match="cannot be read"), opened(cortex.path) as old:
        list(old.facts(Limits()))


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_it_is_only_read(cortex: Cortex, journal: str) -> None:
    cortex.connection.execute(f"PRAGMA journal_mode = {journal}")
    cortex.fact()
    cortex.connection.close()
    before = cortex.path.read_bytes()
    cortex.path.chmod(stat.S_IRUSR)
    assert len(read(cortex)) == 1
    assert cortex.path.read_bytes() == before
    assert list(cortex.path.parent.iterdir()) == [cortex.path]


def test_what_a_running_writer_has_in_its_log_is_read(cortex: Cortex) -> None:
    cortex.connection.execute("PRAGMA journal_mode = wal")
    cortex.fact("one")
    with opened(cortex.path) as old:
        cortex.fact("two, after the moment at which it was opened")
        assert len(list(old.facts(Limits()))) == 1
    assert len(read(cortex)) == 2


def test_batches_are_bounded_in_number_and_size() -> None:
    def sizes(facts: list[Old]) -> list[int]:
        return [len(batch) for batch in batches(facts, 3)]

    small = Old(({"n": 1},), 10)
    assert sizes([small] * 7) == [3, 3, 1]
    assert sizes([Old(({}, {}), 10)] * 2) == [3, 1]
    assert sizes([small, Old(({},), BATCH_BYTES + 1), small]) == [1, 1, 1]
    assert sizes([]) == []
