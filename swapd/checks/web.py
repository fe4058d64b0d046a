"""What ``swapd check`` looks at of the web server, and of what answers behind it."""

from __future__ import annotations

from swapd.checks.behind_nginx import find_nginx
from swapd.checks.caching import find_stale_code
from swapd.checks.links import find_links
from swapd.checks.pausing import find_pause
from swapd.checks.serving import find_broken, find_mapping, find_serving
from swapd.checks.waiting import begin_counting, find_queues, find_timeouts

WEB_CHECKS = (
    find_pause,
    find_queues,
    find_timeouts,
    find_serving,
    find_links,
    find_mapping,
    find_nginx,
    find_stale_code,
)
WEB_HOST_CHECKS = (find_broken,)
# Before everything else: what takes a while from then on.
BEGINNINGS = (begin_counting,)
