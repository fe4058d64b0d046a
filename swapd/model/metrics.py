"""Metrics: what swapd knows of itself and of its sites, in Prometheus' text format.

The format and its conventions (base units, ``_total`` for what only grows, ``_info`` for words) are Prometheus' own.
Its client library would be loaded by the daemon for the sake of an escape and a join: what it counts is lost with the
process, and what swapd counts is not. How many series there are is bounded: words from outside are in labels only of
what is live, and of what ended last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

from swapd.model.record import Kind, LiveRelease
from swapd.model.release import Outcome, SiteName, Stage, printable
from swapd.model.totals import DURATION_BUCKETS, PAUSE_BUCKETS, Histogram, Totals

HEARTBEAT = 60.0  # seconds after which all is written though nothing has changed: so that a dead daemon can be told

ENDED = [outcome for outcome in Outcome if outcome is not Outcome.PENDING]

Labels = Mapping[str, str]
Sample = tuple[str, Labels, float | None]  # what is added to the metric's name; no value: no sample


@dataclass(frozen=True, slots=True)
class DaemonMetrics:
    """What is said of the daemon; times are seconds since the epoch."""

    version: str
    is_up: bool
    started: float
    is_configuration_valid: bool
    loaded: float  # the configuration that is in force
    records_lost: int


@dataclass(frozen=True, slots=True)
class SiteMetrics:
    """What is said of a site."""

    site: SiteName
    totals: Totals
    live: LiveRelease | None
    is_deploying: bool
    waiting: int
    oldest: float | None  # since when the oldest of those that wait lies there
    is_lost: bool  # its drop directory
    has_trouble: bool


def format_metrics(daemon: DaemonMetrics, sites: Iterable[SiteMetrics], written: float) -> str:
    """All of the file; ``written`` is when, and nothing else in it changes by itself."""
    return "".join(_format_families(daemon, list(sites), written))


def escape_label(text: str) -> str:
    """A label's value between its quotes: whatever the text, it stays one line of valid UTF-8."""
    return printable(text).replace("\\", "\\\\").replace('"', '\\"')


def _format_families(daemon: DaemonMetrics, sites: list[SiteMetrics], written: float) -> Iterator[str]:
    yield from _family("up", "gauge", "Whether the daemon runs, as it said last.", _plain(daemon.is_up))
    info = [("", {"version": daemon.version}, 1.0)]
    yield from _family("build_info", "gauge", "The version of swapd that runs.", info)
    yield from _family("start_time_seconds", "gauge", "When the daemon started.", _plain(daemon.started))
    text = "When the daemon wrote this last, which it does once a minute: long ago, it is dead or cannot."
    yield from _family("heartbeat_timestamp_seconds", "gauge", text, _plain(written))
    text = "Whether the configuration is good; when it is not, the one before stays in force."
    yield from _family("configuration_valid", "gauge", text, _plain(daemon.is_configuration_valid))
    text = "When the configuration that is in force was read."
    yield from _family("configuration_loaded_timestamp_seconds", "gauge", text, _plain(daemon.loaded))
    text = "Records of swapd that the journal did not take in time, as seen since the daemon started."
    yield from _family("journal_records_lost_total", "counter", text, _plain(daemon.records_lost))
    for name, kind, text, samples in _SITE_FAMILIES:
        yield from _family(name, kind, text, (sample for site in sites for sample in _of(site, samples(site))))


def _plain(value: float) -> list[Sample]:
    return [("", {}, value)]


def _of(site: SiteMetrics, samples: Iterable[Sample]) -> Iterator[Sample]:
    """With the site's name, which comes first."""
    for suffix, labels, value in samples:
        yield suffix, {"site": site.site, **labels}, value


def _family(name: str, kind: str, text: str, samples: Iterable[Sample]) -> Iterator[str]:
    """The lines of one metric; none where it has no samples."""
    lines = [
        f"swapd_{name}{suffix}{_format_labels(labels)} {_format_number(value)}\n"
        for suffix, labels, value in samples
        if value is not None
    ]
    if lines:
        yield f"# HELP swapd_{name} {text}\n# TYPE swapd_{name} {kind}\n"
        yield from lines


def _format_labels(labels: Labels) -> str:
    inner = ",".join(f'{name}="{escape_label(value)}"' for name, value in labels.items())
    return f"{{{inner}}}" if inner else ""


def _format_number(value: float) -> str:
    """Without an exponent, and to the microsecond, which is what swapd measures in."""
    return str(int(value)) if value == int(value) else f"{value:.6f}".rstrip("0")


def _release(site: SiteMetrics) -> Iterator[Sample]:
    if site.live is not None:
        known = site.totals.live
        strategy = known.strategy if known and known.deployment == site.live.deployment else ""
        yield "", {"release": site.live.release, "strategy": strategy}, 1.0


def _deployments(site: SiteMetrics) -> Iterator[Sample]:
    """Those that there have been none of, too: a counter that appears with its first event shows no rise."""
    for kind in Kind:
        for outcome in ENDED:
            yield "", {"kind": kind.value, "outcome": outcome.value}, site.totals.count_of(kind, outcome)


def _last(site: SiteMetrics) -> Iterator[Sample]:
    if (last := site.totals.last) is not None:
        yield "", {"kind": last.kind.value, "outcome": last.outcome.value, "problem": last.problem}, 1.0


def _durations(site: SiteMetrics) -> Iterator[Sample]:
    yield from _histogram(site.totals.deployments, DURATION_BUCKETS, {"kind": Kind.DEPLOYMENT.value})
    yield from _histogram(site.totals.rollbacks, DURATION_BUCKETS, {"kind": Kind.ROLLBACK.value})


def _stages(site: SiteMetrics) -> Iterator[Sample]:
    sums = {item.stage: item for item in site.totals.stages}
    for stage in Stage:
        found, labels = sums.get(stage), {"stage": stage.value}
        yield "_sum", labels, found.usec / 1e6 if found else 0.0
        yield "_count", labels, found.count if found else 0


def _pauses(site: SiteMetrics) -> Iterator[Sample]:
    yield from _histogram(site.totals.pauses.durations, PAUSE_BUCKETS, {})


def _histogram(histogram: Histogram, bounds: tuple[int, ...], labels: Labels) -> Iterator[Sample]:
    limits = [*(_format_number(bound / 1e6) for bound in bounds), "+Inf"]
    for limit, number in zip(limits, accumulate(histogram.counts), strict=True):
        yield "_bucket", {**labels, "le": limit}, number
    yield "_sum", labels, histogram.usec / 1e6
    yield "_count", labels, sum(histogram.counts)


def _seconds(usec: int | None) -> float | None:
    return None if usec is None else usec / 1e6


# Name, type, what it says, and its samples for one site.
_SITE_FAMILIES: tuple[tuple[str, str, str, Callable[[SiteMetrics], Iterable[Sample]]], ...] = (
    ("release_info", "gauge", "The release that is live, and how it was swapped.", _release),
    (
        "release_live_timestamp_seconds",
        "gauge",
        "Since when the live release is live.",
        lambda site: _plain(site.live.since.timestamp()) if site.live else [],
    ),
    ("deployments_total", "counter", "Deployments and rollbacks, by how they ended.", _deployments),
    ("last_deployment_info", "gauge", "How the last deployment ended; problem is empty where it went well.", _last),
    (
        "last_deployment_timestamp_seconds",
        "gauge",
        "When the last deployment ended, however.",
        lambda site: [("", {}, _seconds(site.totals.last.ended if site.totals.last else None))],
    ),
    (
        "last_success_timestamp_seconds",
        "gauge",
        "When the last deployment ended that made its release live, or found it live.",
        lambda site: [("", {}, _seconds(site.totals.succeeded))],
    ),
    ("deployment_duration_seconds", "histogram", "How long what went live took, from claim to live.", _durations),
    ("stage_duration_seconds", "summary", "How long deployments were in each stage.", _stages),
    ("pause_duration_seconds", "histogram", "How long httpd was paused for a swap.", _pauses),
    (
        "paused_processes_total",
        "counter",
        "Processes of httpd that were paused, over all pauses.",
        lambda site: _plain(site.totals.pauses.processes),
    ),
    (
        "pause_queued_connections_total",
        "counter",
        "Connections that waited at the end of a pause, and were served then.",
        lambda site: _plain(site.totals.pauses.queued),
    ),
    (
        "pause_overflowed_connections_total",
        "counter",
        "Times that a full listen queue turned a connection away during a pause.",
        lambda site: _plain(site.totals.pauses.overflowed),
    ),
    (
        "pause_dropped_connections_total",
        "counter",
        "Connections that were dropped during a pause, and had to be tried again.",
        lambda site: _plain(site.totals.pauses.dropped),
    ),
    (
        "last_pause_duration_seconds",
        "gauge",
        "How long the last pause was.",
        lambda site: [("", {}, _seconds(site.totals.last_pause.usec if site.totals.last_pause else None))],
    ),
    (
        "last_pause_processes",
        "gauge",
        "How many processes of httpd the last pause stopped.",
        lambda site: [("", {}, site.totals.last_pause.processes if site.totals.last_pause else None)],
    ),
    (
        "last_pause_dropped_connections",
        "gauge",
        "How many connections the last pause dropped.",
        lambda site: [("", {}, site.totals.last_pause.dropped if site.totals.last_pause else None)],
    ),
    (
        "deployment_under_way",
        "gauge",
        "Whether the daemon deploys to the site now.",
        lambda site: _plain(site.is_deploying),
    ),
    ("uploads_waiting", "gauge", "Uploads that wait for their turn, or for something.", lambda s: _plain(s.waiting)),
    (
        "oldest_upload_timestamp_seconds",
        "gauge",
        "Since when the oldest of the uploads that wait is there; nothing where none waits.",
        lambda site: [("", {}, site.oldest)],
    ),
    (
        "drop_directory_lost",
        "gauge",
        "Whether the drop directory cannot be looked at.",
        lambda site: _plain(site.is_lost),
    ),
    (
        "site_trouble",
        "gauge",
        "Whether the status line says that something is wrong with the site.",
        lambda site: _plain(site.has_trouble),
    ),
)
