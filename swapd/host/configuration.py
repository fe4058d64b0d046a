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
    issues: list[ConfigurationIssue] = []
    defaults = _read_source(layout.defaults_file, issues)
    sources: dict[str, Source] = {}
    if layout.sites.is_dir():
        for path in sorted(layout.sites.glob("*.toml")):
            if not path.name.startswith(".") and (source := _read_source(path, issues)) is not None:
                sources[path.stem] = source
    try:
        sites = parse_sites(sources, defaults, layout)
    except ConfigurationError as error:
        issues.extend(error.issues)
    if issues:
        raise ConfigurationError(issues)
    return sites


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
    """One site; ``UsageError`` when there is none of this name."""
    sites = read_sites(layout)
    if not SITE_NAME.fullmatch(name) or SiteName(name) not in sites:
        configured = ", ".join(sites) or "none"
        raise UsageError(
            "unknown-site",
            f"there is no site {printable(name)} in {layout.sites} (there: {configured})",
            f"Make it with: swapd init {printable(name)} --live PATH",
        )
    return sites[SiteName(name)]
