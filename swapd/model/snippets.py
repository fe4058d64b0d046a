"""What a web server's configuration has to include for a pinned site: texts made of values.

Facts that they rest on (httpd 2.4):

- mod_alias maps a URL by an expression in ``<Location>``, with the rest of the path kept (``AliasPreservePath``, since
  2.4.58): names with ``?``, blanks and percent signs come through as they are, relative rules in ``.htaccess`` find
  their way back, and no release's path gets into a Location header. A RewriteRule's own substitution does none of that.
- Such an Alias wins over the two-argument ones of the same server, so that these are repeated beside it.
- httpd does not start when the file of a RewriteMap is not there: ``<IfFile>`` takes care of a map that was lost. What
  is served then is the live path.
- A subrequest has its request's environment, an internal redirect has it with REDIRECT_ in front: by that, a request
  stays with its release wherever it is sent.
- mod_setenvif is asked before mod_rewrite: without a route, the variables name the live path, never nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from swapd.model.config import Site
from swapd.model.route import KEY, route_base

_DIGEST = re.compile(r"\A#[^\n]*\n# Digest of the rest: ([0-9a-f]{16})\n")
_DOCUMENT_ROOT = re.compile(r'Alias "[^"]*/%\{env:SWAPD_TREE\}((?:/[^"]*)?)/"')
_TOKEN = re.compile(r"/\\\.swapd-route/([0-9a-f]{32})\$")


@dataclass(frozen=True, slots=True)
class Alias:
    """An Alias of the server that the route must not hide."""

    kind: str  # Alias or ScriptAlias
    url: str
    target: str


@dataclass(frozen=True, slots=True)
class DirectoryBlock:
    """What the server's configuration says in ``<Directory>`` of the live path, or of a directory in it."""

    inner: str  # relative to the live path; empty for itself
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What of the server's configuration goes into the site's part of it."""

    document_root: str = ""  # relative to a release
    aliases: tuple[Alias, ...] = ()
    blocks: tuple[DirectoryBlock, ...] = ()


def probe_path(token: str) -> str:
    """The URL's path at which a server that follows the route says which tree it serves."""
    return f"/.swapd-route/{token or 'none'}"


def find_token(text: str) -> str:
    """The secret part of that path, in a text that ``format_apache`` made; empty when it has none."""
    found = _TOKEN.search(text)
    return found[1] if found else ""


def find_document_root(text: str) -> str | None:
    """Which directory of a release such a text serves; None where it does not say so."""
    found = _DOCUMENT_ROOT.search(text)
    return found[1].strip("/") if found else None


def is_unchanged(text: str) -> bool:
    """Whether nobody has changed the text since it was made."""
    found = _DIGEST.match(text)
    return found is not None and found[1] == _digest(text[found.end() :])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _sealed(site: Site, body: str) -> str:
    head = f"# Written by swapd init for the site {site.name}, and written anew by it as long as nobody changes it."
    return f"{head}\n# Digest of the rest: {_digest(body)}\n{body}"


def nginx_include(site: Site) -> str:
    """The line for nginx's configuration."""
    return f"include {site.route.nginx};"


def format_apache(site: Site, around: Surroundings, token: str) -> str:
    """What the site's virtual host includes."""
    base, releases = route_base(site), site.releases.relative_to(route_base(site))
    tree = rf"^({re.escape(str(releases))}/([^/.][^/]*))$".replace(r"\-", "-")
    inner = f"/{around.document_root}" if around.document_root else ""
    lines = [
        f"# For the <VirtualHost> of the site, above rules of its own:  IncludeOptional {site.route.apache}",
        f'<IfFile "{site.route.map}">',
        "    # Which tree is served: the live path, until the map names a release.",
        f'    SetEnvIf Request_URI "^" SWAPD_TREE={site.live.relative_to(base)} SWAPD_ROOT={site.live}',
        "    RewriteEngine On",
        f'    RewriteMap swapd-{site.name} "txt:{site.route.map}"',
        "    # Looked up once: what a request began with, its subrequests and internal redirects go on with.",
        f'    RewriteCond %{{ENV:SWAPD_TREE}} "{tree}" [OR]',
        f'    RewriteCond %{{ENV:REDIRECT_SWAPD_TREE}} "{tree}" [OR]',
        f'    RewriteCond ${{swapd-{site.name}:{KEY}}} "{tree}"',
        f'    RewriteRule ^ - "[E=SWAPD_TREE:%1,E=SWAPD_RELEASE:%2,E=SWAPD_ROOT:{base}/%1]"',
        "    # By this, swapd check sees that the server follows the route.",
        rf'    RewriteRule "^/\.swapd-route/{token}$" "http://route.swapd.invalid/%{{ENV:SWAPD_TREE}}" [R=302,L]',
        '    <Location "/">',
        f'        Alias "{base}/%{{env:SWAPD_TREE}}{inner}/"',
        "        AliasPreservePath On",
        "    </Location>",
        *(line for alias in around.aliases for line in _format_alias(alias)),
        "    # What applications that run elsewhere are told; SWAPD_ROOT is the release, for mod_php, too.",
        "    <IfModule proxy_fcgi_module>",
        f'        ProxyFCGISetEnvIf "true" DOCUMENT_ROOT "%{{reqenv:SWAPD_ROOT}}{inner}"',
        "    </IfModule>",
        "</IfFile>",
        *_format_blocks(site, around.blocks),
    ]
    return _sealed(site, "".join(f"{line}\n" for line in lines))


def _format_alias(alias: Alias) -> list[str]:
    return [
        f'    <Location "{alias.url}">',
        f'        {alias.kind} "{alias.target}"',
        "        AliasPreservePath On",
        "    </Location>",
    ]


def _format_blocks(site: Site, blocks: Sequence[DirectoryBlock]) -> list[str]:
    """What holds for the live path holds for each release."""
    lines = (
        [f"# As <Directory> has it for {site.live}; after a change there: swapd init {site.name} …"] if blocks else []
    )
    for block in blocks:
        inner = f"/{block.inner}" if block.inner else ""
        lines += [f'<Directory "{site.releases}/*{inner}">', *(f"    {line}" for line in block.lines), "</Directory>"]
    return lines


def format_nginx(site: Site, around: Surroundings) -> str:
    """What the site's server block includes."""
    inner = f"/{around.document_root}" if around.document_root else ""
    body = f"""\
# Include it in the server {{ }} of the site, instead of a root of its own.
root "{site.live}{inner}";
# It would go on serving the files of the release before.
open_file_cache off;
# nginx follows the link for each request. PHP must be told where it led, or its caches serve old code: in the location
# that passes PHP on, below include fastcgi_params (or snippets/fastcgi-php.conf):
#     fastcgi_param SCRIPT_FILENAME $realpath_root$fastcgi_script_name;
#     fastcgi_param DOCUMENT_ROOT $realpath_root;
"""
    return _sealed(site, body)
