"""The exposition is what Prometheus reads: each sample declared, each digit of a counter kept, each label escaped."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.metrics import SECONDS, Histogram, Metric, Metrics
from tests.node.exposition import parse


def test_a_new_node_has_every_metric() -> None:
    metrics = Metrics()
    text = metrics.text()
    parse(text)
    assert re.findall(r"# TYPE (\S+)", text) == [metric.name for metric in metrics.all()]
    for metric in metrics.all():
        assert metric.name.startswith("cortex_")
        assert (metric.kind == "counter") == metric.name.endswith("_total")


def test_counters_count_and_gauges_hold() -> None:
    metrics = Metrics()
    metrics.ops.add(3, "local")
    metrics.ops.add(2, "local")
    metrics.ops.add(1, "peer")
    metrics.rss.set(5)
    metrics.rss.set(4)
    samples = parse(metrics.text())
    assert samples["cortex_ops_total", 'kind="local"'] == 5
    assert samples["cortex_ops_total", 'kind="peer"'] == 1
    assert samples["cortex_rss_bytes", ""] == 4


@given(st.integers(0, 2**53) | st.floats(0, 1e18))
def test_every_digit_is_kept(value: float) -> None:
    metric = Metric("cortex_x_total", "counter", "help", ())
    metric.add(value)
    ((_, told),) = [line.split(" ") for line in metric.lines()]
    assert float(told) == value


@given(st.text())
def test_labels_are_escaped(label: str) -> None:
    metric = Metric("cortex_x", "gauge", "help", ("peer",))
    metric.set(1, label)
    (line,) = metric.lines()
    written = line.removeprefix('cortex_x{peer="').removesuffix('"} 1')
    assert "\n" not in line
    read = re.sub(r"\\(.)", lambda found: {"n": "\n"}.get(found[1], found[1]), written)
    assert read == label


@given(st.lists(st.sampled_from([*SECONDS, 0.0]) | st.floats(0, 100), min_size=1, max_size=30))
def test_buckets_hold_what_took_no_longer(durations: list[float]) -> None:
    histogram = Histogram("cortex_request_seconds", "how long it took", ("name",))
    for duration in durations:
        histogram.observe(duration, "get")
    text = "# HELP cortex_request_seconds how long it took\n# TYPE cortex_request_seconds histogram\n"
    samples = parse(text + "\n".join(histogram.lines()) + "\n")
    for bound in (*SECONDS, math.inf):
        told = "+Inf" if bound == math.inf else str(bound)
        count = samples["cortex_request_seconds_bucket", f'name="get",le="{told}"']
        assert count == sum(duration <= bound for duration in durations)
    assert samples["cortex_request_seconds_count", 'name="get"'] == len(durations)
    assert samples["cortex_request_seconds_sum", 'name="get"'] == pytest.approx(math.fsum(durations))


def test_a_label_too_few_is_noticed() -> None:
    metric = Metric("cortex_x", "gauge", "help", ("peer",))
    metric.set(1)
    with pytest.raises(ValueError, match="zip"):
        list(metric.lines())
