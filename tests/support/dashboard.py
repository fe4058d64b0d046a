"""The dashboard for Grafana, as a test looks at it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

DASHBOARD = Path(__file__).parents[2] / "packaging/grafana/swapd.json"
# What Grafana puts in the place of its variables; with several hosts and sites, what is chosen of them.
VARIABLES = {"$__range": "1d", "$__interval": "5m", "$instance": "web1|web2", "$site": ".*"}


def read_dashboard() -> dict[str, Any]:
    dashboard: dict[str, Any] = json.loads(DASHBOARD.read_text("utf-8"))
    return dashboard


def expressions(dashboard: dict[str, Any]) -> list[str]:
    """All of its queries, as Prometheus gets them."""
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    notes = [note["expr"] for note in dashboard["annotations"]["list"] if "expr" in note]
    pattern = re.compile("|".join(re.escape(variable) for variable in VARIABLES))
    return [pattern.sub(lambda match: VARIABLES[match[0]], text) for text in panels + notes]
