"""Everything that swapd says to the journal, as values: one function for each kind of event.

The messages are sentences for people; programs read MESSAGE_ID and the fields. ``systemd/swapd.catalog`` explains
each kind to ``journalctl -x``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from swapd.model.config import Pause
from swapd.model.errors import ConfigurationIssue
from swapd.model.message_ids import MessageId
from swapd.model.record import Deployment, Kind
from swapd.model.release import Outcome, PauseCost, ReleaseId, SiteName, printable
from swapd.model.text import LONGEST
from swapd.model.units import format_duration

# syslog(3)'s priorities. `journalctl -p warning` shows what somebody should look at.
ERROR, WARNING, NOTICE, INFO = 3, 4, 5, 6
MOST_ISSUES = 3  # of a configuration, in one message


@dataclass(frozen=True, slots=True)
class Event:
    """One journal record."""

    id: MessageId
    priority: int
    message: str
    fields: Mapping[str, str | int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Whatever text from outside is in it: one line, and nothing that a terminal would obey.
        object.__setattr__(self, "message", printable(self.message, LONGEST))

    @property
    def journal_fields(self) -> dict[str, str | bytes | int]:
        """All fields but MESSAGE and PRIORITY."""
        return {"MESSAGE_ID": self.id.value, **self.fields}


@dataclass(frozen=True, slots=True)
class Loss:
    """So many records that the journal did not take, and when the first and the last of them were sent."""

    count: int
    first: datetime
    last: datetime


def _of_site(
    kind: MessageId, priority: int, site: SiteName, message: str, fields: Mapping[str, str | int] | None = None
) -> Event:
    return Event(kind, priority, f"{site}: {message}", {"SWAPD_SITE": site, **(fields or {})})


def deployment_fields(deployment: Deployment) -> dict[str, str | int]:
    """The fields of a deployment's records; what is not known is left out."""
    fields: dict[str, str | int | None] = {
        "SWAPD_DEPLOYMENT": deployment.id,
        "SWAPD_RELEASE": deployment.release,
        "SWAPD_DIGEST": deployment.digest,
        "SWAPD_UPLOADER": deployment.uploader or None,
        "SWAPD_SIGNER": deployment.signer or None,
        "SWAPD_OPERATOR": deployment.operator or None,
        "SWAPD_STAGE": deployment.stage or None,
        "SWAPD_STRATEGY": deployment.strategy or None,
        **_pause_fields(deployment.pause),
    }
    if deployment.ended is not None:
        fields["SWAPD_OUTCOME"] = deployment.outcome.value
        fields["SWAPD_DURATION_USEC"] = deployment.duration_usec
        fields["SWAPD_PROBLEM"] = deployment.problem or None
        fields["SWAPD_HINT"] = deployment.hint or None
    return {key: value for key, value in fields.items() if value is not None}


def _pause_fields(pause: PauseCost | None) -> dict[str, str | int]:
    if pause is None:
        return {}
    queues = " ".join(f"{queue.listener}={queue.queued}/{queue.limit}" for queue in pause.queues)
    return {
        "SWAPD_PAUSE_USEC": pause.duration_usec,
        "SWAPD_PAUSED": pause.processes,
        **({"SWAPD_QUEUED": queues} if queues else {}),
        "SWAPD_OVERFLOWED": pause.overflowed,
        "SWAPD_DROPPED": pause.dropped,
    }


def started(sites: Sequence[SiteName], version: str) -> Event:
    what = f"sites: {', '.join(sites)}" if sites else "no site is configured yet: swapd init proposes one"
    return Event(MessageId.STARTED, INFO, f"swapd {version} watches for tarballs; {what}")


def stopping(busy: Sequence[SiteName]) -> Event:
    what = f"; interrupting the deployment of {', '.join(busy)}" if busy else ""
    return Event(MessageId.STOPPING, INFO, f"swapd is stopping{what}")


def reloaded(sites: Sequence[SiteName]) -> Event:
    return Event(MessageId.RELOADED, INFO, f"the configuration was reloaded; sites: {', '.join(sites) or 'none'}")


def configuration_refused(issues: Sequence[ConfigurationIssue]) -> Event:
    message = f"the new configuration was refused, the one before it stays in force: {_list_issues(issues)}"
    return Event(MessageId.CONFIGURATION_REFUSED, ERROR, message)


def configuration_unusable(issues: Sequence[ConfigurationIssue]) -> Event:
    message = f"swapd does not start with this configuration: {_list_issues(issues)}"
    return Event(MessageId.CONFIGURATION_UNUSABLE, ERROR, message)


def _list_issues(issues: Sequence[ConfigurationIssue]) -> str:
    more = [f"and {len(issues) - MOST_ISSUES} more: swapd check lists them"] if len(issues) > MOST_ISSUES else []
    return " | ".join([*map(str, issues[:MOST_ISSUES]), *more])


def deployment_started(deployment: Deployment) -> Event:
    what = deployment.release or printable(deployment.file_name)
    if deployment.kind is Kind.ROLLBACK:
        by = f", asked for by {deployment.who}" if deployment.who else ""
        way = f" from {deployment.previous}" if deployment.previous else ""
        way += f" to {deployment.release}" if deployment.release else ""
        message = f"rolling back{way}{by}"
        kind = MessageId.ROLLBACK_STARTED
    else:
        by = f", uploaded by {deployment.uploader}" if deployment.uploader else ""
        message, kind = f"deploying {what}{by}", MessageId.DEPLOYMENT_STARTED
    return _of_site(kind, INFO, deployment.site, message, deployment_fields(deployment))


_OUTCOMES: dict[Outcome, tuple[MessageId, int]] = {
    Outcome.LIVE: (MessageId.DEPLOYMENT_LIVE, NOTICE),
    Outcome.UNCHANGED: (MessageId.DEPLOYMENT_UNCHANGED, INFO),
    Outcome.REJECTED: (MessageId.DEPLOYMENT_REJECTED, WARNING),
    Outcome.FAILED: (MessageId.DEPLOYMENT_FAILED, ERROR),
    Outcome.ROLLED_BACK: (MessageId.DEPLOYMENT_ROLLED_BACK, WARNING),
}
_ROLLBACKS = {
    Outcome.LIVE: MessageId.ROLLBACK_LIVE,
    Outcome.UNCHANGED: MessageId.ROLLBACK_UNCHANGED,
    Outcome.REJECTED: MessageId.ROLLBACK_REJECTED,
    Outcome.FAILED: MessageId.ROLLBACK_FAILED,
}


def describe_pause(pause: PauseCost | None) -> str:
    """What the pause cost, as the end of a sentence."""
    if pause is None or not pause.processes:
        return "nothing was paused"
    processes = "1 httpd process was" if pause.processes == 1 else f"{pause.processes} httpd processes were"
    parts = [f"{processes} paused for {format_duration(pause.duration_usec / 1e6)}"]
    if pause.queued:
        parts.append(f"{_connections(pause.queued)} waited")
    parts.append(f"{_connections(pause.dropped)} had to be tried again" if pause.dropped else "nothing was dropped")
    return ", ".join(parts)


def _connections(count: int) -> str:
    return "1 connection" if count == 1 else f"{count} connections"


def deployment_ended(deployment: Deployment) -> Event:
    """The one outcome record of a deployment."""
    kind, priority = _OUTCOMES[deployment.outcome]
    is_rollback = deployment.kind is Kind.ROLLBACK
    if is_rollback:
        kind = _ROLLBACKS.get(deployment.outcome, kind)
    what = deployment.release or printable(deployment.file_name)
    match deployment.outcome:
        case Outcome.LIVE:
            message = f"{what} is live{' again' if is_rollback else ''}; {deployment.reason}"
        case Outcome.UNCHANGED if deployment.is_superseded:
            kind = MessageId.DEPLOYMENT_SUPERSEDED
            message = f"{what} was not deployed: {deployment.reason}. {deployment.hint}"
        case Outcome.UNCHANGED:
            message = f"{what} is live already; nothing was touched"
        case _:
            if is_rollback:
                what = f"the rollback to {deployment.release}" if deployment.release else what
            message = f"{what} {deployment.outcome.value}: {deployment.reason}"
            if deployment.pause is not None:
                message += f"; {describe_pause(deployment.pause)}"
            if deployment.hint:
                message += f". {deployment.hint}"
    if deployment.problem == "interrupted":
        kind, priority = MessageId.INTERRUPTED, NOTICE
    return _of_site(kind, priority, deployment.site, message, deployment_fields(deployment))


def strategy_chosen(site: SiteName, strategy: str, reason: str) -> Event:
    """What auto has picked."""
    message = f"swapping by {strategy}: {reason}"
    return _of_site(MessageId.STRATEGY_CHOSEN, INFO, site, message, {"SWAPD_STRATEGY": strategy})


def no_httpd(site: SiteName, rules: Pause) -> Event:
    return _of_site(MessageId.NO_HTTPD, NOTICE, site, f"{describe_no_httpd(rules)}: deployed without a pause")


def describe_no_httpd(rules: Pause) -> str:
    """Which processes were looked for in vain."""
    restrictions = {" in ": rules.unit, " as user ": rules.user, " from ": rules.exe}
    where = "".join(f"{word}{value}" for word, value in restrictions.items() if value)
    return f"no process called {' or '.join(rules.processes)} is running{where}"


def adopted(site: SiteName, release: ReleaseId, where: str) -> Event:
    message = f"the tree that was live is kept as {release} in {where}"
    return _of_site(MessageId.ADOPTED, NOTICE, site, message, {"SWAPD_RELEASE": release})


def pruned(site: SiteName, releases: Sequence[str]) -> Event:
    return _of_site(MessageId.PRUNED, INFO, site, f"removed {', '.join(releases)}")


def release_held(site: SiteName, release: ReleaseId, why: str) -> Event:
    message = f"{release} is past its time, and kept: {why}"
    return _of_site(MessageId.RELEASE_HELD, NOTICE, site, message, {"SWAPD_RELEASE": release})


def kept_gone(site: SiteName, releases: Sequence[str], where: str) -> Event:
    message = f"{', '.join(releases)} was kept and is not in {where} any more: it cannot be rolled back to"
    return _of_site(MessageId.KEPT_GONE, WARNING, site, message)


def live_adopted(site: SiteName, path: str, release: ReleaseId | None) -> Event:
    if release is None:
        return _of_site(MessageId.LIVE_ADOPTED, WARNING, site, f"{path} is gone, and swapd did not take it away")
    what = f"what stands at {path} is taken for the release {release}, as it was changed by hand"
    return _of_site(MessageId.LIVE_ADOPTED, WARNING, site, what, {"SWAPD_RELEASE": release})


def rebuilt(site: SiteName, message: str) -> Event:
    return _of_site(MessageId.REBUILT, WARNING, site, message)


def recovered(site: SiteName, message: str, release: ReleaseId | None) -> Event:
    fields: dict[str, str | int] = {} if release is None else {"SWAPD_RELEASE": release}
    return _of_site(MessageId.RECOVERED, WARNING, site, message, fields)


def resumed_leftover(count: int, pauser: int) -> Event:
    message = f"resumed {count} httpd processes that process {pauser} had left stopped"
    return Event(MessageId.RESUMED_LEFTOVER, WARNING, message, {"SWAPD_PAUSED": count})


def drop_directory_lost(site: SiteName, path: str, why: str) -> Event:
    remedy = f"Mount what it was on, or make it again with: swapd init {site}"
    message = f"the drop directory {path} cannot be watched: {why}. {remedy}"
    return _of_site(MessageId.DROP_DIRECTORY_LOST, ERROR, site, message)


def watch_rebuilt(reason: str) -> Event:
    return Event(MessageId.WATCH_REBUILT, WARNING, f"the watch on the drop directories was set up anew: {reason}")


def polled(site: SiteName, path: str, filesystem: str, seconds: float) -> Event:
    message = f"the drop directory {path} is on {filesystem}, which may change without an event"
    return _of_site(MessageId.POLLED, NOTICE, site, f"{message}: it is looked at every {seconds:g} s")


def unwatched(site: SiteName, path: str, why: str, seconds: float) -> Event:
    message = f"the drop directory {path} has no events ({why}): it is looked at every {seconds:g} s"
    return _of_site(MessageId.POLLED, WARNING, site, message)


def degraded(message: str, site: SiteName | None = None) -> Event:
    """Something works less well than it should, and nothing is lost."""
    if site is None:
        return Event(MessageId.DEGRADED, WARNING, message)
    return _of_site(MessageId.DEGRADED, WARNING, site, message)


def records_dropped(loss: Loss) -> Event:
    what = "1 journal record was" if loss.count == 1 else f"{loss.count} journal records were"
    times = [f"{instant.astimezone():%Y-%m-%d %H:%M:%S}" for instant in (loss.first, loss.last)]
    when = f"at {times[0]}" if times[0] == times[1] else f"between {times[0]} and {times[1]}"
    message = f"{what} lost {when}, as the journal did not take them; what was deployed meanwhile, swapd history tells"
    return Event(MessageId.RECORDS_DROPPED, WARNING, message, {"SWAPD_RECORDS_DROPPED": loss.count})
