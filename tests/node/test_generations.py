"""A generation moves with every change of its scope and stands still without one."""

from hypothesis import given
from hypothesis import strategies as st

from node.generations import EVERYTHING, PLACES, Generations

SCOPES = st.sampled_from(["garden", "yard", "k7q2m4zx5tvb3nya-17", EVERYTHING])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.sets(SCOPES)),
        st.just(("end", set())),
        st.tuples(st.just("move"), st.sets(SCOPES)),
    )
)


def test_a_commit_moves_what_it_touches_and_nothing_else() -> None:
    generations = Generations()
    before, elsewhere = generations.of("garden"), generations.of("yard")
    generations.begin(["garden"])
    assert generations.of("garden") is None
    assert generations.of(EVERYTHING) is None
    assert generations.of("yard") == elsewhere
    generations.end()
    assert generations.of("garden") not in (None, before)
    assert generations.of("yard") == elsewhere


def test_a_commit_that_touches_nothing_moves_nothing() -> None:
    generations = Generations()
    before = generations.of(EVERYTHING)
    generations.begin([])
    generations.end()
    assert generations.of(EVERYTHING) == before


def test_a_scope_that_shares_a_place_is_moved_too_and_once() -> None:
    generations = Generations()
    names = [f"fact {number}" for number in range(PLACES + 1)]
    places = {hash(name) % PLACES: name for name in names}
    twin = next(name for name in names if places[hash(name) % PLACES] != name)
    generations.begin([twin, places[hash(twin) % PLACES]])
    assert generations.of(twin) is None
    generations.end()
    assert generations.of(twin) == 2


def test_all_can_be_moved_at_once() -> None:
    generations = Generations()
    before = [generations.of(scope) for scope in ("garden", "yard", EVERYTHING)]
    generations.move()
    assert all(generations.of(scope) not in before for scope in ("garden", "yard", EVERYTHING))


@given(STEPS)
def test_no_generation_ever_comes_back_after_a_change(steps: list[tuple[str, set[str]]]) -> None:
    """Against a model that counts changes: as long as a scope changed, its generation is new, or there is none."""
    generations = Generations()
    seen: dict[str, set[int]] = {}
    current: dict[str, int | None] = {}
    begun: set[str] = set()
    scopes = ["garden", "yard", "k7q2m4zx5tvb3nya-17", EVERYTHING]
    for scope in scopes:
        current[scope] = generations.of(scope)
    for name, touched in steps:
        touched = touched | {EVERYTHING} if touched else touched
        if name == "begin":
            generations.begin(touched)
            begun |= touched
        elif name == "end":
            generations.end()
            touched, begun = begun, set()
        else:
            generations.move(touched)
        for scope in scopes:
            now = generations.of(scope)
            if scope in begun:
                assert now is None
            elif scope in touched:
                assert now is not None
                if (before := current[scope]) is not None:
                    seen.setdefault(scope, set()).add(before)
                assert now not in seen.get(scope, set())
                current[scope] = now
