"""The dashboard for Grafana, and the README's alerts, name what swapd writes, and nothing that it does not."""

from __future__ import annotations

import itertools
import re

from swapd.model.metrics import DaemonMetrics, SiteMetrics, format_metrics
from swapd.model.record import Deployment, LiveRelease, TreeIdentity, now
from swapd.model.release import DeploymentId, Outcome, PauseCost, ReleaseId, SiteName
from swapd.model.totals import Totals, count
from tests.support import exposition
from tests.support.dashboard import expressions, read_dashboard
from tests.support.httpd import PROJECT

SHOP, ONE = SiteName("shop"), DeploymentId("one")
ADDED = {"instance", "job"}  # by Prometheus


def written() -> exposition.Metrics:
    """Every metric there is."""
    ended = Deployment(ONE, SHOP, Outcome.LIVE, now(), ended=now(), pause=PauseCost(900, 4))
    live = LiveRelease(ReleaseId("shop-1@9f86d081884c"), None, ONE, now(), TreeIdentity(1, 1))
    site = SiteMetrics(SHOP, count(Totals(), ended), live, True, 1, 1.0, True, True)
    daemon = DaemonMetrics("1", is_up=True, started=1, is_configuration_valid=True, loaded=1, records_lost=0)
    return exposition.parse(format_metrics(daemon, [site], 1))


def test_it_names_no_metric_and_no_label_that_is_not_there() -> None:
    metrics = written()
    labels = {name: set().union(*metrics.labels(name)) for name, _ in metrics.values}
    all_labels = set().union(*labels.values()) | ADDED
    shown = set()
    for expression in expressions(read_dashboard()):
        assert "$" not in expression, "a variable that Grafana does not know"
        for name, matchers in re.findall(r"(swapd_\w+)\{(.*?)\}", expression):
            assert name in labels, f"{name} is not written"
            shown.add(name)
            for label in re.findall(r"(\w+)=", matchers):
                assert label in labels[name] | ADDED, f"{name} has no label {label}"
        assert len(re.findall(r"swapd_\w+", expression)) == len(re.findall(r"swapd_\w+\{", expression)), expression
        for group in re.findall(r"(?:by|on|group_left) \((.*?)\)", expression):
            assert set(re.split(r",\s*", group)) <= all_labels, expression
    # What is for other eyes than those that look at three in the morning.
    rest = {"swapd_build_info", "swapd_start_time_seconds", "swapd_configuration_loaded_timestamp_seconds"}
    families = {name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count") for name in shown}
    assert metrics.types.keys() - families <= rest | {
        "swapd_last_success_timestamp_seconds",
        "swapd_last_pause_dropped_connections",
    }


def test_the_readme_s_alerts_name_metrics_that_are_there() -> None:
    (block,) = re.findall(r"```promql\n(.*?)```", (PROJECT / "README.md").read_text("utf-8"), re.DOTALL)
    named = set(re.findall(r"swapd_\w+", block))
    assert named <= {name for name, _ in written().values}
    assert len(named) >= 4


def test_counters_are_shown_by_their_rise() -> None:
    """Since when they count says nothing."""
    growing = {name for name, _ in written().counters}
    for expression in expressions(read_dashboard()):
        for before, name in re.findall(r"([a-z_]+\()?(swapd_\w+)", expression):
            assert (before == "increase(") == (name in growing), expression


def test_legends_name_labels_that_their_query_leaves() -> None:
    labels = {"release", "strategy", *ADDED, *(set().union(*(dict(key) for _, key in written().values)))}
    for panel in read_dashboard()["panels"]:
        for target in panel["targets"]:
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert named <= labels, panel["title"]
            for group in re.findall(r"(?:sum|min) by \((.*?)\)", target["expr"]):
                assert named <= set(re.split(r",\s*", group)), panel["title"]


def test_panels_have_ids_words_and_places_of_their_own() -> None:
    dashboard = read_dashboard()
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) >= 12
    assert len({panel["title"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["description"], panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}", "whatever it is called where it is imported"
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs)
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24
    for one, other in itertools.combinations((panel["gridPos"] for panel in panels), 2):
        is_beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        is_above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert is_beside or is_above, (one, other)


def test_one_can_choose_data_source_host_and_site_and_sees_deployments_in_all_panels() -> None:
    dashboard = read_dashboard()
    variables = dashboard["templating"]["list"]
    assert [variable["name"] for variable in variables] == ["datasource", "instance", "site"]
    metrics = written()
    for variable in variables[1:]:
        query = variable["query"]["query"]
        match = re.fullmatch(r"label_values\((swapd_\w+)(?:\{.*\})?, (\w+)\)", query)
        assert match, query
        assert match[2] in set().union(*metrics.labels(match[1])) | ADDED, query
        assert metrics.labels(match[1]), query
    notes = [note for note in dashboard["annotations"]["list"] if "expr" in note]
    assert {note["name"] for note in notes} == {"Live", "Not live"}
    assert all(note["useValueForTime"] == "on" for note in notes), "at its own time, and not at a scrape's"
    assert "id" not in dashboard, "Grafana gives it one"
