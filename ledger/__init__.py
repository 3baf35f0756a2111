"""The ledger: committed votes, ordered, hash-chained, and provable to an outsider.

Not built yet: nothing in this package works, and no other package imports it. Votes will be counted everywhere as
pending by what `crdt` shows; here they become committed, as entries of an RFC 6962 Merkle tree that a hub's quorum
appends to.

Its place: beside `crdt`, at the bottom. It will import no other package of this project, and its mathematics does no
I/O; storage is a `typing.Protocol` that `node` supplies.
"""
