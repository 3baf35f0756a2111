"""Scores: the arithmetic by hand, the laws over random ledgers, and what an attacker does not get."""

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import score, vote
from ledger.agents import Agent
from ledger.entry import NO_HASH, NO_PROJECT, Entry, Kind, decode, text_hash
from ledger.score import Ballot, Effect, Fold, Key, Pending, Trust, Verdict, judge
from ledger.statement import Constants, Genesis, seal
from tests.ledger.world import (
    AUTHORITY,
    HUB,
    MESH,
    NOW_MS,
    OWNER,
    PROJECT,
    TAG,
    Mesh,
    enrolment,
    key,
    revocation,
    secret,
    signed_vote,
    version_of,
    vote_of,
)

CONSTANTS = Constants()
Line = tuple[Entry, bytes | None]


def lines_of(mesh: Mesh) -> list[Line]:
    return list(zip(map(decode, mesh.storage.entries), mesh.storage.texts, strict=True))


class Ledger:
    """Entries without the chain and the tree: what a fold reads."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.add(
            Kind.GENESIS, seal(Genesis(MESH, key(AUTHORITY), CONSTANTS, NOW_MS), key(AUTHORITY), [secret(AUTHORITY)])
        )
        self.add(Kind.ENROLMENT, enrolment(OWNER, HUB, owner=True))
        self.counters: dict[tuple[str, str, str], int] = {}

    def add(self, kind: int, text: bytes | None, tag: bytes = NO_PROJECT, own: bool = False) -> int:
        name = text_hash(text) if text is not None else bytes(32)
        self.lines.append((Entry(kind, own, len(self.lines), 1, NOW_MS, NO_HASH, 0, tag, name), text))
        return len(self.lines) - 1

    def enrol(self, *agents: str) -> "Ledger":
        for agent in agents:
            self.add(Kind.ENROLMENT, enrolment(*agent.split("@")))
        return self

    def vote(
        self, agent: str, fact: str, value: int, counter: int = 0, own: bool = False, project: str = PROJECT
    ) -> int:
        counter = counter or self.counters.get((agent, fact, project), 0) + 1
        self.counters[agent, fact, project] = counter
        return self.add(Kind.VOTE, signed_vote(agent, fact, value, counter, project), TAG, own)

    def fold(self) -> Fold:
        return score.fold(lambda: self.lines, key(AUTHORITY), checked=True)

    def verdict(self, fact: str) -> Verdict:
        return self.fold().verdict(key_of(fact))


def key_of(fact: str, project: str = PROJECT) -> Key:
    return Key(project, fact, version_of(fact))


def crowd(count: int) -> list[str]:
    """Agents on a machine each."""
    return [f"agent {at}@machine {at}" for at in range(count)]


def names(agents: Sequence[str]) -> list[str]:
    return [agent.split("@")[0] for agent in agents]


# --- the arithmetic ---


@pytest.mark.parametrize(
    ("reputation", "weight"), [(700_000, 400), (500_000, 0), (0, 0), (1_000_000, 1_000), (900_000, 800), (500_499, 0)]
)
def test_weights(reputation: int, weight: int) -> None:
    assert score.weight(reputation) == weight


def ballots(*weighed: int) -> list[Ballot]:
    """A voice each; the sign is the vote."""
    return [Ballot(bytes([at]), abs(weight), 1 if weight > 0 else -1, False) for at, weight in enumerate(weighed)]


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ([], Verdict(1_000, Trust.UNSETTLED, 0, 0)),
        ([400], Verdict(1_333, Trust.UNSETTLED, 400, 0)),
        ([400, 400], Verdict(1_500, Trust.VERIFIED, 800, 0)),
        ([400, 399], Verdict(1_499, Trust.UNSETTLED, 799, 0)),
        ([-400, -400], Verdict(500, Trust.DISPUTED, 0, 800)),
        ([900], Verdict(1_529, Trust.UNSETTLED, 900, 0)),  # one voice alone never decides
        ([900, 900, -400], Verdict(1_466, Trust.UNSETTLED, 1_800, 400)),
        ([1_000, 1_000, -400], Verdict(1_500, Trust.VERIFIED, 2_000, 400)),
        ([400, 400, -400, -400], Verdict(1_000, Trust.CONTESTED, 800, 800)),
        ([1_000, 1_000, 1_000, -1_000], Verdict(1_416, Trust.CONTESTED, 3_000, 1_000)),
    ],
)
def test_verdicts(votes: list[int], expected: Verdict) -> None:
    assert judge(CONSTANTS, ballots(*votes)) == expected
    assert judge(CONSTANTS, reversed(ballots(*votes))) == expected


@pytest.mark.parametrize(("value", "trust"), [(1, Trust.VERIFIED), (-1, Trust.DISPUTED)])
def test_an_owner_decides_alone(value: int, trust: Trust) -> None:
    assert judge(CONSTANTS, [Ballot(b"v", 1_000, value, True)]).trust is trust
    assert judge(CONSTANTS, [Ballot(b"v", 1_000, value, False)]).trust is Trust.UNSETTLED


def test_a_voice_counts_its_largest_weight_once_a_side() -> None:
    same = [Ballot(b"v", weight, 1, False) for weight in (100, 400, 300)] + [Ballot(b"v", 200, -1, False)]
    assert judge(CONSTANTS, same) == Verdict(1_142, Trust.UNSETTLED, 400, 200)


def test_a_voice_without_weight_is_not_a_second_voice() -> None:
    assert judge(CONSTANTS, [*ballots(900), Ballot(b"w", 0, 1, False)]).trust is Trust.UNSETTLED


@pytest.mark.parametrize(("values", "linear"), [([], 1_000), ([1, 1, -1], 1_100), ([-1] * 11, 0)])
def test_the_linear_score(values: list[int], linear: int) -> None:
    assert score.linear_score(values) == linear


# --- settlement ---


def test_settlement_moves_those_who_voted() -> None:
    ledger = Ledger().enrol("a@1", "b@2", "c@3", "d@4")
    for agent, value in (("a", 1), ("d", -1), ("b", 1), ("c", 1)):
        ledger.vote(agent, "f", value)
    fold = ledger.fold()
    assert fold.verdict(key_of("f")).trust is Trust.UNSETTLED  # 1200 < 3 * 400 + 800
    ledger.vote(OWNER, "f", 1)
    fold = ledger.fold()
    assert fold.verdict(key_of("f")).trust is Trust.VERIFIED
    for agent in "abc":
        assert fold.reputation(PROJECT, key(agent)) == 700_000 + (300_000 >> 4) == 718_750
    assert fold.reputation(PROJECT, key("d")) == 700_000 - (700_000 >> 4) == 656_250
    assert fold.reputation(PROJECT, key(OWNER)) == 700_000
    assert fold.reputation("another project", key("a")) == 700_000


def test_two_agreeing_machines_verify_and_three_settle() -> None:
    ledger = Ledger().enrol("a@1", "b@2", "c@3")
    ledger.vote("a", "f", 1)
    assert ledger.verdict("f").trust is Trust.UNSETTLED
    ledger.vote("b", "f", 1)
    assert ledger.verdict("f").trust is Trust.VERIFIED
    assert ledger.fold().reputation(PROJECT, key("a")) == 700_000
    ledger.vote("c", "f", 1)
    assert ledger.fold().reputation(PROJECT, key("a")) == 718_750


def test_later_votes_earn_nothing_and_each_outcome_settles_once() -> None:
    ledger = Ledger().enrol("a@1", "b@2", "c@3", "d@4")
    for agent in "abc":
        ledger.vote(agent, "f", 1)
    ledger.vote("d", "f", 1)
    fold = ledger.fold()
    assert fold.reputation(PROJECT, key("d")) == 700_000
    for value in (-1, 1, -1):  # the other outcome settles too, and neither does so again
        for agent in "abcd":
            ledger.vote(agent, "f", value)
    settled = ledger.fold().tallies[key_of("f")].settled
    assert settled == ("verified", "disputed")
    assert ledger.fold().reputation(PROJECT, key("a")) > 718_750


def test_an_own_vote_weighs_nothing_and_earns_nothing() -> None:
    ledger = Ledger().enrol("a@1", "b@2", "c@3", "d@4")
    ledger.vote("a", "f", 1, own=True)
    ledger.vote("b", "f", 1)
    assert ledger.verdict("f").trust is Trust.UNSETTLED and ledger.verdict("f").up == 400
    for agent in "cd":
        ledger.vote(agent, "f", 1)
    fold = ledger.fold()
    assert fold.reputation(PROJECT, key("a")) == 700_000 and fold.reputation(PROJECT, key("b")) > 700_000


def test_a_lone_user_verifies_only_as_owner() -> None:
    ledger = Ledger().enrol(*(f"tool {at}@{HUB}" for at in range(20)))
    for at in range(20):
        ledger.vote(f"tool {at}", "f", 1)
    assert ledger.verdict("f").trust is Trust.UNSETTLED
    ledger.vote(OWNER, "f", 1, own=True)
    assert ledger.verdict("f").trust is Trust.VERIFIED


# --- what an attacker does not get ---


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9), st.sampled_from([1, -1])), max_size=40))
def test_one_newcomer_never_verifies(history: list[tuple[int, int, int]]) -> None:
    """Whatever others made of other facts."""
    ledger = Ledger().enrol(*crowd(5), "newcomer@elsewhere")
    for agent, fact, value in history:
        ledger.vote(f"agent {agent}", f"fact {fact}", value)
    ledger.vote("newcomer", "f", 1)
    verdict = ledger.verdict("f")
    assert verdict == Verdict(1_333, Trust.UNSETTLED, 400, 0)


def test_a_thousand_fresh_agents_of_one_machine_do_not_outvote_five_established() -> None:
    ledger = Ledger().enrol(*crowd(5))
    for fact in range(20):
        for agent in range(5):
            ledger.vote(f"agent {(agent + fact) % 5}", f"earlier {fact}", 1)  # the first three of them earn
    fold, entries = ledger.fold(), len(ledger.lines)
    fresh = [f"fresh {at}" for at in range(1_000)]
    # Signatures are not what this is about, and 2,000 of them take a second.
    for agent in fresh:
        fold.agents.known[key(agent)] = Agent(key(agent), key(agent), agent, key("one machine"), False, 0)
    ledger.lines = []
    for agent in fresh:
        ledger.vote(agent, "f", -1)
    for agent in range(5):
        ledger.vote(f"agent {agent}", "f", 1)
    for entry, text in ledger.lines:
        fold.apply(msgspec.structs.replace(entry, index=entries + entry.index), text, checked=True)
    verdict = fold.verdict(key_of("f"))
    assert 0 < verdict.down <= 400 and verdict.trust is Trust.VERIFIED  # one voice, and it has lost some weight
    assert all(fold.reputation(PROJECT, key(f"agent {agent}")) > 800_000 for agent in range(5))


# --- counters ---


def test_the_highest_counter_counts() -> None:
    ledger = Ledger().enrol("a@1")
    ledger.vote("a", "f", 1, counter=5)
    ledger.vote("a", "f", -1, counter=4)
    assert ledger.verdict("f").up == 400
    ledger.vote("a", "f", 0, counter=6)
    assert ledger.verdict("f") == Verdict(1_000, Trust.UNSETTLED, 0, 0)
    assert ledger.fold().next_counter(key_of("f"), key("a")) == 7
    assert ledger.fold().next_counter(key_of("g"), key("a")) == 1


def test_two_values_under_one_counter_count_as_none() -> None:
    ledger = Ledger().enrol("a@1")
    for value in (1, -1, 1):
        ledger.vote("a", "f", value, counter=3)
        ledger.vote("a", "g", value, counter=3)
    assert ledger.verdict("f").score == 1_000
    ledger.vote("a", "f", 1, counter=4)
    assert ledger.verdict("f").up == 400


def test_an_edit_starts_as_unsettled_and_a_crossed_vote_counts_nowhere() -> None:
    ledger = Ledger().enrol("a@1", "b@2")
    for agent in "ab":
        ledger.vote(agent, "f", 1)
    fold = ledger.fold()
    assert fold.verdict(Key(PROJECT, "f", version_of("edited f"))).trust is Trust.UNSETTLED
    assert fold.verdict(Key(PROJECT, "g", version_of("f"))).trust is Trust.UNSETTLED
    assert fold.verdict(Key("elsewhere", "f", version_of("f"))).trust is Trust.UNSETTLED


# --- who may vote ---


def test_votes_of_strangers_and_of_the_revoked_count_nothing() -> None:
    ledger = Ledger().enrol("a@1", "b@2")
    ledger.vote("eve", "f", 1)
    ledger.vote("a", "f", 1)
    ledger.add(Kind.REVOCATION, revocation("a"))
    ledger.vote("a", "f", -1)
    ledger.vote("b", "f", 1)
    assert ledger.verdict("f") == Verdict(1_500, Trust.VERIFIED, 800, 0)


def test_a_vote_with_a_wrong_signature_counts_nothing_on_any_node() -> None:
    ledger = Ledger().enrol("a@1")
    signed = signed_vote("a", "f", 1)
    ledger.add(Kind.VOTE, signed[:-1] + bytes([signed[-1] ^ 1]), TAG)
    other = vote.sign(vote_of("a", "f", 1)._replace(mesh=bytes(32)), secret("a"))
    ledger.add(Kind.VOTE, other, TAG)
    fold = Fold(key(AUTHORITY))
    effects = [fold.apply(entry, text) for entry, text in ledger.lines]
    assert effects[-2:] == [Effect.NONE, Effect.NONE]
    assert fold.verdict(key_of("f")).up == 0


def test_a_new_key_goes_on_with_reputation_and_counters() -> None:
    ledger = Ledger().enrol("a@1", "b@2", "c@3")
    for agent in "abc":
        ledger.vote(agent, "f", 1)
    ledger.add(Kind.ENROLMENT, enrolment("a 2", "1", replaces="a"))
    ledger.vote("a 2", "f", -1, counter=2)
    ledger.vote("a 2", "g", 1)
    fold = ledger.fold()
    assert fold.verdict(key_of("f")).down == fold.verdict(key_of("g")).up == score.weight(718_750)


def test_void_from_takes_back_what_the_votes_had_done() -> None:
    ledger = Ledger().enrol("a@1", "b@2", "c@3", "liar@4")
    ledger.vote("liar", "early", 1)
    cut = ledger.vote("liar", "f", 1)
    for agent in "ab":
        ledger.vote(agent, "f", 1)
    assert ledger.fold().reputation(PROJECT, key("a")) > 700_000
    incremental = Fold(key(AUTHORITY))
    ledger.add(Kind.REVOCATION, revocation("liar", void_from=cut))
    effects = [incremental.apply(entry, text, checked=True) for entry, text in ledger.lines]
    assert effects[-1] is Effect.REFOLD
    fold = ledger.fold()
    assert fold.reputation(PROJECT, key("a")) == 700_000
    assert fold.verdict(key_of("f")).up == 800 and fold.verdict(key_of("early")).up == 400


# --- what can't be read ---


def test_a_kind_of_a_later_version_freezes_scores() -> None:
    ledger = Ledger().enrol("a@1", "b@2")
    ledger.vote("a", "f", 1)
    before = ledger.verdict("f")
    ledger.add(77, b"from a later version")
    ledger.vote("b", "f", 1)
    fold = ledger.fold()
    assert fold.verdict(key_of("f")) == before
    assert dict(fold.frozen) == {NO_PROJECT: 5}


def test_a_missing_text_or_a_later_kind_about_a_project_freezes_that_project() -> None:
    for kind, text in ((77, b"later"), (int(Kind.VOTE), None)):
        ledger = Ledger().enrol("a@1", "b@2")
        ledger.add(kind, text, bytes([9]) * 32)
        at = ledger.vote("a", "f", 1)
        fold = ledger.fold()
        assert fold.verdict(key_of("f")).up == 400
        assert dict(fold.frozen) == {bytes([9]) * 32: 4} and at == 5


def test_another_entrys_text_is_a_mistake_of_the_caller() -> None:
    ledger = Ledger()
    with pytest.raises(ValueError, match="not the text"):
        Fold(key(AUTHORITY)).apply(ledger.lines[0][0], b"other")


# --- laws ---

AGENTS = [*crowd(5), "twin@machine 0"]
actions = st.lists(
    st.one_of(
        st.tuples(
            st.just("vote"),
            st.sampled_from([*names(AGENTS), OWNER]),
            st.sampled_from(["f", "g", "h"]),
            st.sampled_from([1, 1, 0, -1]),
            st.integers(0, 3),
            st.booleans(),
            st.sampled_from([PROJECT, "other"]),
        ),
        st.tuples(st.just("revoke"), st.sampled_from(names(AGENTS)), st.none() | st.integers(0, 60)),
    ),
    max_size=40,
)


def enact(history: list[tuple[object, ...]]) -> Ledger:
    ledger = Ledger().enrol(*AGENTS)
    for action in history:
        match action:
            case ("vote", str(agent), str(fact), int(value), int(counter), bool(own), str(project)):
                ledger.vote(agent, fact, value, counter, own, project)
            case ("revoke", str(agent), cut):
                ledger.add(
                    Kind.REVOCATION, revocation(agent, min(cut, len(ledger.lines)) if isinstance(cut, int) else None)
                )
    return ledger


def numbers(fold: Fold, project: str) -> object:
    facts = [fold.verdict(key_of(fact, project)) for fact in "fgh"]
    return facts, {name: amount for (where, name), amount in fold.reputations.items() if where == project}


@settings(max_examples=60)
@given(actions)
def test_incremental_is_from_scratch(history: list[tuple[object, ...]]) -> None:
    ledger = enact(history)
    fold = Fold(key(AUTHORITY))
    for at, (entry, text) in enumerate(ledger.lines):
        if fold.apply(entry, text, checked=True) is Effect.REFOLD:
            fold = score.fold(lambda end=at: ledger.lines[: end + 1], key(AUTHORITY), checked=True)  # type: ignore[misc]
    whole = ledger.fold()
    assert fold.tallies == whole.tallies and fold.reputations == whole.reputations
    assert fold.agents.known == whole.agents.known


@settings(max_examples=60)
@given(actions)
def test_a_partial_node_has_the_same_numbers(history: list[tuple[object, ...]]) -> None:
    ledger = enact(history)

    def carries(line: Line) -> bool:
        return line[0].kind != Kind.VOTE or vote.decode(line[1] or b"").project == PROJECT

    partial = score.fold(lambda: filter(carries, ledger.lines), key(AUTHORITY), checked=True)
    assert numbers(partial, PROJECT) == numbers(ledger.fold(), PROJECT)


@settings(max_examples=60)
@given(
    actions,
    st.lists(st.tuples(st.sampled_from(names(AGENTS)), st.sampled_from([1, 0, -1]), st.integers(1, 5)), max_size=12),
    st.randoms(use_true_random=False),
)
def test_any_order_of_gossip_gives_the_same_provisional_score(
    history: list[tuple[object, ...]], gossiped: list[tuple[str, int, int]], chance: object
) -> None:
    fold = enact(history).fold()
    committed = fold.verdict(key_of("f"))
    pending = [
        Pending(vote_of(agent, "f", value, counter), False, fold.agents.known[key(agent)])
        for agent, value, counter in gossiped
    ]
    expected = fold.provisional(key_of("f"), pending)
    for _ in range(3):
        chance.shuffle(pending)  # type: ignore[attr-defined]
        assert fold.provisional(key_of("f"), [*pending, *pending[:3]]) == expected
    assert fold.verdict(key_of("f")) == committed
    assert fold.provisional(key_of("f"), []) == committed


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 3), st.integers(-1, 1)), max_size=10), st.data())
def test_votes_merge_in_any_order(votes: list[tuple[str, int, int]], data: st.DataObject) -> None:
    casts = [score.Cast(name.encode(), name.encode(), False, False, counter, value) for name, counter, value in votes]

    def merged(order: Sequence[score.Cast]) -> tuple[score.Cast, ...]:
        there: tuple[score.Cast, ...] = ()
        for one in order:
            there = score.cast(there, one)
        return there

    once = merged(casts)
    assert merged(data.draw(st.permutations(casts))) == once == merged([*casts, *once])


def test_a_pending_vote_counts_beside_the_committed_and_settles_nothing() -> None:
    ledger = Ledger().enrol("a@1", "b@2", "c@3")
    ledger.vote("a", "f", 1)
    fold = ledger.fold()
    known = fold.agents.known
    pending = [Pending(vote_of(agent, "f", 1), False, known[key(agent)]) for agent in "bc"]
    assert fold.verdict(key_of("f")).trust is Trust.UNSETTLED
    assert fold.provisional(key_of("f"), pending).trust is Trust.VERIFIED
    assert not fold.reputations and not fold.tallies[key_of("f")].settled
    assert fold.provisional(key_of("f"), [Pending(vote_of("eve", "f", 1), False, None)]) == fold.verdict(key_of("f"))


def test_the_ledger_of_the_log_folds_too() -> None:
    mesh = Mesh().found()
    mesh.enrol("a@1", "b@2")
    for agent in ("a", "b"):
        mesh.vote(agent, "f", 1)
    mesh.revoke("b", void_from=0)
    fold = score.fold(lambda: lines_of(mesh), key(AUTHORITY))
    assert fold.verdict(key_of("f")).up == 400 and fold.mesh == MESH


class Disk(dict[Key, score.Tally]):
    """A mapping of the caller's own that keeps bytes, as a table would."""

    def __setitem__(self, at: Key, tally: score.Tally) -> None:
        super().__setitem__(at, msgspec.msgpack.decode(msgspec.msgpack.encode(tally), type=score.Tally))


def test_state_may_live_elsewhere() -> None:
    ledger = Ledger().enrol("a@1", "b@2", "c@3")
    for agent in "abc":
        ledger.vote(agent, "f", 1)
    disk = Disk()
    fold = Fold(key(AUTHORITY), tallies=disk)
    for entry, text in ledger.lines[:-1]:
        fold.apply(entry, text)
    resumed = Fold(
        key(AUTHORITY),
        tallies=disk,
        reputations=fold.reputations,
        agents=fold.agents.known,
        constants=fold.constants,
        mesh=fold.mesh,
    )
    resumed.apply(*ledger.lines[-1])
    assert resumed.tallies == ledger.fold().tallies and resumed.reputations == ledger.fold().reputations
