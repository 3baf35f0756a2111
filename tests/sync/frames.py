"""Every kind of message, drawn by hypothesis within its bounds."""

from hypothesis import strategies as st

from crdt.op import MAX_SEQ
from sync import messages

shorts = st.binary(min_size=8, max_size=8)
sixteen = st.binary(min_size=16, max_size=16)
points = st.lists(st.binary(min_size=32, max_size=32), max_size=3).map(tuple)
names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=30)
walls = st.integers(-(2**52), 2**52)
known = st.builds(messages.Known, sixteen, st.dictionaries(sixteen, st.integers(1, MAX_SEQ), max_size=4))
several = st.lists(names, max_size=3).map(tuple)

dots = st.lists(st.tuples(sixteen, st.integers(1, MAX_SEQ)), min_size=1, max_size=4).map(tuple)

ids = st.binary(max_size=80)
nodes = st.dictionaries(st.integers(0, 65_535), st.binary(min_size=64, max_size=64), max_size=4)
leaves = st.dictionaries(st.integers(0, 65_535), ids, max_size=4)

anything = st.one_of(
    st.builds(
        messages.Open,
        st.integers(1, 9),
        st.integers(1, 9),
        sixteen,
        st.text("ab", max_size=9),
        several,
        points,
        st.booleans(),
        st.integers(0, 99),
    ),
    st.builds(messages.Carries, several, points),
    st.builds(messages.Hello, sixteen, walls, st.none() | st.lists(shorts, max_size=6).map(tuple)),
    st.just(messages.Same()),
    st.builds(messages.Digests, st.dictionaries(names, shorts, max_size=4)),
    st.builds(
        messages.Vectors,
        st.integers(1, 64),
        st.dictionaries(names, known, max_size=3),
        st.lists(st.integers(0, 5), max_size=6).map(tuple),
    ),
    st.builds(
        messages.Batch,
        st.integers(1, 99),
        names,
        st.lists(st.binary(min_size=64, max_size=200), min_size=1, max_size=9).map(tuple),
    ),
    st.builds(messages.Ack, st.integers(1, 99), st.integers(0, 512)),
    st.just(messages.Done()),
    st.builds(
        messages.Push,
        st.integers(1, 99),
        names,
        st.lists(st.binary(min_size=64, max_size=200), min_size=1, max_size=9).map(tuple),
    ),
    st.builds(messages.Took, st.integers(1, 99), st.sampled_from(messages.Fate)),
    st.builds(messages.Have, names, dots),
    st.builds(messages.Want, names, dots),
    st.builds(messages.Walk, names, sixteen, st.integers(0, 4), nodes, leaves),
    st.builds(messages.Step, nodes, leaves, ids),
    st.builds(messages.Audit, names, st.integers(0, 4), st.integers(0, 65_535), sixteen),
    st.builds(messages.Audited, sixteen),
)
