"""Reads the configuration files."""

from __future__ import annotations

from pathlib import Path

from swapd.model.config import Site
from swapd.model.config_parser import Source, parse_metrics_file, parse_sites
from swapd.model.errors import ConfigurationError, ConfigurationIssue, UsageError
from swapd.model.layout import Layout
from swapd.model.release import SITE_NAME, SiteName, printable


def read_sites(layout: Layout) -> dict[SiteName, Site]:
    """Every configured site by its name, none when there are no files; ``ConfigurationError`` with all mistakes."""
    sites, error = read_sound_sites(layout)
    if error is not None:
        raise error
    return sites


def read_sound_sites(layout: Layout) -> tuple[dict[SiteName, Site], ConfigurationError | None]:
    """The sites whose own file has no mistake, by their names; and all mistakes.

    None of them where the defaults have one: every site would be another one without them.
    """
    issues: list[ConfigurationIssue] = []
    defaults = _read_source(layout.defaults_file, issues)
    sources: dict[str, Source] = {}
    if layout.sites.is_dir():
        for path in sorted(layout.sites.glob("*.toml")):
            if not path.name.startswith(".") and (source := _read_source(path, issues)) is not None:
                sources[path.stem] = source
    sites: dict[SiteName, Site] | None = None
    try:
        sites = parse_sites(sources, defaults, layout)
    except ConfigurationError as error:
        issues.extend(error.issues)
    wrong = {issue.file for issue in issues}
    if str(layout.defaults_file) in wrong:
        sites = {}
    elif sites is None:
        sound = {name: source for name, source in sources.items() if source.file not in wrong}
        sites = parse_sites(sound, defaults, layout)
    return sites, ConfigurationError(issues) if issues else None


def read_metrics_file(layout: Layout) -> Path | None:
    """Where metrics are to be written, if anywhere; ``ConfigurationError`` as ``read_sites``."""
    issues: list[ConfigurationIssue] = []
    defaults = _read_source(layout.defaults_file, issues)
    file = None if defaults is None else parse_metrics_file(defaults, issues)
    if issues:
        raise ConfigurationError(issues)
    return file


def _read_source(path: Path, issues: list[ConfigurationIssue]) -> Source | None:
    try:
        return Source(str(path), path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        issues.append(ConfigurationIssue(str(path), line, "", "is not UTF-8", "save it as UTF-8, as TOML asks"))
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        issues.append(ConfigurationIssue(str(path), 0, "", message, "make it readable for swapd (mode 0644)"))
    return None


def read_site(layout: Layout, name: str) -> Site:
    """One site, whatever is wrong with others; ``UsageError`` when there is none of this name.

    ``ConfigurationError`` when its own file, or the defaults, have a mistake.
    """
    sites, error = read_sound_sites(layout)
    if SITE_NAME.fullmatch(name) and SiteName(name) in sites:
        return sites[SiteName(name)]
    if error is not None and {str(layout.site_file(name)), str(layout.defaults_file)} & {i.file for i in error.issues}:
        raise error
    configured = ", ".join(sites) or "none"
    raise UsageError(
        "unknown-site",
        f"there is no site {printable(name)} in {layout.sites} (there: {configured})",
        f"Make it with: swapd init {printable(name)} --live PATH",
    )
