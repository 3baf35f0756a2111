"""A strict reader of Prometheus' text format, as the tests need it."""

import re

LINE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\\n]|\\[\\"n])*",?)+)\})? ([-+.e\dinfa]+)')


def parse(text: str) -> dict[tuple[str, str], float]:
    """Text format 0.0.4, strictly: HELP and TYPE before the samples of each metric, nothing else."""
    samples: dict[tuple[str, str], float] = {}
    declared: set[str] = set()
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            assert len(line.split(" ", 3)[3]) > 10
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert kind in ("counter", "gauge", "histogram")
            assert name not in declared
            declared.add(name)
        else:
            found = LINE.fullmatch(line)
            assert found, line
            name, labels, value = found[1], found[2] or "", float(found[3])
            assert re.sub(r"_(bucket|sum|count)$", "", name) in declared or name in declared
            assert (name, labels) not in samples
            samples[name, labels] = value
    return samples
