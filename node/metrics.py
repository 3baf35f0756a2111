"""Counters, gauges and histograms in Prometheus' text format.

Written by hand: the client library costs 13 MB, a tenth of an edge node's memory. Every metric is declared here, once,
with its help; tests/test_docs.py checks that the README tells of each. Label values come from fixed sets or are peers'
ids, never from users' text. Tests: tests/node/test_metrics.py.
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Bounds of the request histogram's buckets."""
COUNTS = (1, 2, 5, 10, 20, 50, 100)
"""Bounds of the buckets of what is counted: 100 writes share a commit at most."""

Labels = tuple[str, ...]


@dataclass(slots=True)
class Metric:
    """One metric: its values by label values."""

    name: str
    kind: str
    help: str
    labels: Labels = ()
    values: dict[Labels, float] = field(default_factory=dict)

    def add(self, amount: float = 1, *labels: str) -> None:
        """Add to a counter."""
        self.values[labels] = self.values.get(labels, 0) + amount

    def set(self, value: float, *labels: str) -> None:
        """Set a gauge."""
        self.values[labels] = value

    def lines(self) -> Iterable[str]:
        """The samples in text format."""
        values = self.values if self.values or self.labels else {(): 0.0}
        for labels, value in sorted(values.items()):
            yield f"{self.name}{_labels(self.labels, labels)} {_number(value)}"


@dataclass(slots=True)
class Histogram:
    """How long things took, or how many they were, by label values."""

    name: str
    help: str
    labels: Labels
    bounds: tuple[float, ...] = SECONDS
    kind: str = "histogram"
    counts: dict[Labels, list[int]] = field(default_factory=dict)
    sums: dict[Labels, float] = field(default_factory=dict)

    def observe(self, value: float, *labels: str) -> None:
        """Count one."""
        counts = self.counts.setdefault(labels, [0] * (len(self.bounds) + 1))
        counts[bisect_left(self.bounds, value)] += 1
        self.sums[labels] = self.sums.get(labels, 0) + value

    def lines(self) -> Iterable[str]:
        """The samples in text format."""
        for labels, counts in sorted(self.counts.items()):
            total = 0
            for bound, count in zip((*self.bounds, "+Inf"), counts, strict=True):
                total += count
                yield f"{self.name}_bucket{_labels((*self.labels, 'le'), (*labels, str(bound)))} {total}"
            yield f"{self.name}_sum{_labels(self.labels, labels)} {_number(self.sums[labels])}"
            yield f"{self.name}_count{_labels(self.labels, labels)} {total}"


class Metrics:
    """All metrics of one node."""

    def __init__(self) -> None:
        self.facts = Metric("cortex_facts", "gauge", "Facts that stand on this node.")
        self.ops = Metric("cortex_ops_total", "counter", "Ops written here (local) or taken in from peers.", ("kind",))
        self.rounds = Metric(
            "cortex_sync_rounds_total", "counter", "Rounds with peers, by how they ended.", ("result",)
        )
        self.bytes = Metric("cortex_sync_bytes_total", "counter", "Bytes to and from peers.", ("direction",))
        self.refused = Metric(
            "cortex_sync_refused_total", "counter", "Sessions closed because a peer broke the protocol.", ("reason",)
        )
        self.repairs = Metric(
            "cortex_merkle_repairs_total", "counter", "Ops that came back, and sums made true again.", ("cause",)
        )
        self.lag_ops = Metric(
            "cortex_sync_lag_ops", "gauge", "Ops by which a peer and this node are apart, the worse way.", ("peer",)
        )
        self.lag_seconds = Metric(
            "cortex_sync_lag_seconds", "gauge", "Age of the oldest op of that lag, in seconds.", ("peer",)
        )
        self.held = Metric("cortex_clock_held_ops", "gauge", "Ops held because their clock is too far ahead.")
        self.votes_pending = Metric("cortex_votes_pending", "gauge", "Votes that the ledger does not have yet.")
        self.ledger_size = Metric("cortex_ledger_size", "gauge", "Entries under the newest checkpoint.")
        self.ledger_forks = Metric("cortex_ledger_forks_total", "counter", "Forks of the ledger that were proved.")
        self.alerts = Metric("cortex_alerts_total", "counter", "What somebody had to be told at once.", ("code",))
        self.cache_hits = Metric("cortex_cache_hits_total", "counter", "Answers given from a cache.", ("tier",))
        self.cache_misses = Metric("cortex_cache_misses_total", "counter", "Answers a cache did not have.", ("tier",))
        self.breakers = Metric(
            "cortex_breaker_state", "gauge", "Circuit breakers: 0 closed, 1 trying, 2 open.", ("target",)
        )
        self.commits = Histogram("cortex_commit_jobs", "Writes that shared one commit.", (), COUNTS)
        self.degraded = Metric("cortex_degraded", "gauge", "1 while a step is given up to save memory.", ("step",))
        self.requests = Histogram("cortex_request_seconds", "How long requests took.", ("surface", "name"))
        self.rss = Metric("cortex_rss_bytes", "gauge", "Resident memory of this process.")
        self.store = Metric("cortex_store_bytes", "gauge", "Size of the database on disk.")

    def all(self) -> list[Metric | Histogram]:
        """Every metric, in the order of their declaration."""
        return [metric for metric in vars(self).values() if isinstance(metric, Metric | Histogram)]

    def text(self) -> str:
        """The exposition, version 0.0.4."""
        out = []
        for metric in self.all():
            out += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}", *metric.lines()]
        return "\n".join(out) + "\n"


def _number(value: float) -> str:
    """All digits: a counter that is rounded to six of them stands still and then jumps."""
    return str(int(value)) if value == int(value) else repr(value)


def _labels(names: Labels, values: Labels) -> str:
    if not names:
        return ""
    escaped = (value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for value in values)
    return "{" + ",".join(f'{name}="{value}"' for name, value in zip(names, escaped, strict=True)) + "}"
