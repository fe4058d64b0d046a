"""Prometheus' text format, read strictly: what its own parser would refuse, or its linter complain of, fails here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

NAME = r"[a-z][a-z0-9_]*"
LABEL = rf'({NAME})="((?:[^"\\\n]|\\["\\n])*)"'
SAMPLE = re.compile(rf"({NAME})(?:\{{((?:{LABEL},?)*)\}})? ([0-9]+(?:\.[0-9]+)?)")
# The suffixes of each type's samples.
TYPES = {
    "gauge": ("",),
    "counter": ("",),
    "histogram": ("_bucket", "_sum", "_count"),
    "summary": ("_sum", "_count"),
}
UNESCAPED = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}

Labels = frozenset[tuple[str, str]]


@dataclass(slots=True)
class Metrics:
    """What a file says: types by metric, values by sample."""

    types: dict[str, str] = field(default_factory=dict)
    values: dict[tuple[str, Labels], float] = field(default_factory=dict)

    def get(self, name: str, **labels: str) -> float:
        """The sample of exactly these labels."""
        return self.values[name, frozenset(labels.items())]

    def has(self, name: str, **labels: str) -> bool:
        return (name, frozenset(labels.items())) in self.values

    def labels(self, name: str, **labels: str) -> list[Mapping[str, str]]:
        """All labels of each of its samples that has these."""
        return [dict(found) for known, found in self.values if known == name and labels.items() <= dict(found).items()]

    @property
    def counters(self) -> dict[tuple[str, Labels], float]:
        """Everything that may only grow."""
        growing = {f"{name}{suffix}" for name, kind in self.types.items() if kind != "gauge" for suffix in TYPES[kind]}
        return {key: value for key, value in self.values.items() if key[0] in growing}


def parse(text: str) -> Metrics:
    """The whole file, or an ``AssertionError`` that names the line."""
    metrics = Metrics()
    assert text.endswith("\n")
    helped = kind = name = ""
    for line in text.removesuffix("\n").split("\n"):
        if line.startswith("# HELP "):
            _, _, helped, words = line.split(" ", 3)
            assert helped not in metrics.types, f"two metrics in one: {line}"
            assert words
            assert "\\" not in words
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == helped, line
            assert name.endswith("_total") == (kind == "counter"), line
            metrics.types[name] = kind
        else:
            match = SAMPLE.fullmatch(line)
            assert match, f"not a sample: {line!r}"
            assert match[1] in [f"{name}{suffix}" for suffix in TYPES[kind]], f"of another metric: {line}"
            pairs = re.findall(LABEL, match[2] or "")
            labels = frozenset((key, re.sub(r"\\.", lambda found: UNESCAPED[found[0]], value)) for key, value in pairs)
            assert len(labels) == len(pairs), line
            assert (match[1], labels) not in metrics.values, f"twice: {line}"
            metrics.values[match[1], labels] = float(match[5])
    _check_histograms(metrics)
    return metrics


def _check_histograms(metrics: Metrics) -> None:
    """Buckets count upwards, and the last one all."""
    for name in (name for name, kind in metrics.types.items() if kind == "histogram"):
        last: dict[Labels, tuple[float, float]] = {}
        for (known, labels), value in metrics.values.items():
            if known == f"{name}_bucket":
                (limit,) = [float(text) for key, text in labels if key == "le"]
                rest = frozenset(item for item in labels if item[0] != "le")
                before = last.get(rest, (-1.0, 0.0))
                assert before[0] < limit, f"{name}: {limit} after {before[0]}"
                assert before[1] <= value, f"{name}: fewer in {limit}"
                last[rest] = (limit, value)
        for rest, (limit, value) in last.items():
            assert limit == float("inf")
            assert metrics.values[f"{name}_count", rest] == value
