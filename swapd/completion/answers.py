"""How a command line may go on: for the shells' completion, which the scripts in ``packaging/completions`` hand on.

Somebody waits for it with a finger on the TAB key: it loads neither click nor the commands, whose options stand in the
``table``, and reads no more than the names of the sites' files and the record of one site. What it answers ends up in
a shell's command line, so names are none unless they are what swapd allows: whatever a record or a directory
holds, nothing comes out of it that a shell would run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

from swapd.completion.table import OPTIONS, VERBS
from swapd.model.patterns import DROPPED, REF, RELEASE_ID, SITE_NAME

# The kinds of values for which a shell has a completion of its own: it is told to use that.
OF_THE_SHELL = ("tarball", "file", "directory", "group")
# As in ``Layout``, which would load all that a configuration may say.
SITES = "etc/swapd/sites"
SPOOL = "var/spool/swapd"
STATE = "var/lib/swapd/{site}/site.toml"

Kind = str | tuple[str, ...]  # of a value: a word for it, or the choices; an empty word for an option that takes none
Options = Mapping[str, tuple[Kind, str]]


def answer(words: Sequence[str]) -> Iterator[str]:
    """Lines of a value, a tab and what it is, for the last of the words, which are those after the program's name.

    Or one line, ``:`` and a kind of value, which the shell then completes itself.
    """
    *before, word = words or [""]
    word = word.lstrip("'\"")  # the shell puts the quote that was typed back in front
    line = _read(before)
    option, equals, begun = word.partition("=")
    if line.awaited is not None:
        yield from _values(line.awaited, line, word, "")
    elif equals and option in line.options:
        yield from _values(line.options[option][0], line, begun, f"{option}=")
    elif word.startswith("-") and not line.is_options_ended:
        for name, (_, what) in line.options.items():
            if name.startswith(word) and name not in line.given:
                yield f"{name}\t{what}"
    elif line.verb is None and not line.arguments:
        yield from (f"{verb}\t{what}" for verb, (what, _, _) in VERBS.items() if verb.startswith(word))
    elif line.verb is not None and len(line.arguments) < len(positionals := VERBS[line.verb][1]):
        yield from _values(positionals[len(line.arguments)], line, word, "")


class _Line:
    """What stands before the word: which verb, its arguments, what may follow."""

    def __init__(self) -> None:
        self.root = "/"
        self.verb: str | None = None
        self.options: Options = OPTIONS
        self.given: set[str] = set()  # options, which nobody needs twice
        self.arguments: list[str] = []
        self.awaited: Kind | None = None  # the value of the option that stands last
        self.is_options_ended = False


def _read(words: Sequence[str]) -> _Line:
    line = _Line()
    option = ""
    for word in words:
        if line.awaited is not None:
            _take(line, option, word)
            line.awaited = None
        elif word == "--" and not line.is_options_ended:
            line.is_options_ended = True
        elif word.startswith("-") and not line.is_options_ended:
            option, equals, value = word.partition("=")
            line.given.add(option)
            if equals:
                _take(line, option, value)
            elif (kind := line.options.get(option, ("", ""))[0]) != "":
                line.awaited = kind
        elif line.verb is None and word in VERBS:
            line.verb, line.options, line.given = word, VERBS[word][2], set()
        else:
            line.arguments.append(word)
    return line


def _take(line: _Line, option: str, value: str) -> None:
    if option == "--root" and line.verb is None:
        line.root = os.path.expanduser(value)


def _values(kind: Kind, line: _Line, begun: str, before: str) -> Iterator[str]:
    """The lines for a value of this kind that was begun, each with what stands ``before`` it in its word."""
    if isinstance(kind, tuple):
        found = [(choice, "") for choice in kind]
    elif kind in OF_THE_SHELL:
        yield f":{kind}"
        return
    elif kind == "site":
        found = [(site, "") for site in _find_sites(line.root)]
    elif kind == "release" and line.arguments:
        found = _find_releases(line.root, line.arguments[0], line.verb)
    elif kind == "ref":
        found = [(ref, "") for ref in _find_refs()]
    elif kind == "dropped" and line.arguments:
        found = [(name, "") for name in _find_dropped(line.root, line.arguments[0])]
    else:
        return
    for value, what in found:
        if value.startswith(begun):
            yield f"{before}{value}\t{what}"


def _find_refs() -> list[str]:
    """The branches and tags of the repository here that have plain names, those that are newest first."""
    import subprocess

    listing = ["git", "for-each-ref", "--sort=-creatordate", "--format=%(refname:short)", "refs/heads", "refs/tags"]
    listed = subprocess.run(listing, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False).stdout
    return [*filter(REF.fullmatch, listed.splitlines()), "HEAD"]


def _find_sites(root: str) -> list[str]:
    names = (name.removesuffix(".toml") for name in os.listdir(os.path.join(root, SITES)) if name.endswith(".toml"))
    return sorted(filter(SITE_NAME.fullmatch, names))


def _find_dropped(root: str, site: str) -> list[str]:
    """The tarballs that lie in the site's drop directory, or have a marker there; none for whoever may not look."""
    import tomllib

    if not SITE_NAME.fullmatch(site):
        return []
    with open(os.path.join(root, SITES, f"{site}.toml"), "rb") as file:
        incoming = tomllib.load(file).get("incoming")
    names = os.listdir(incoming if isinstance(incoming, str) else os.path.join(root, SPOOL, site))
    return sorted({found[1] for name in names if (found := DROPPED.fullmatch(name))})


def _find_releases(root: str, site: str, verb: str | None) -> list[tuple[str, str]]:
    """The releases that the verb may mean, those that were live last first, and what is to be known of each."""
    import tomllib

    if not SITE_NAME.fullmatch(site):
        return []
    with open(os.path.join(root, STATE.format(site=site)), "rb") as file:
        state = tomllib.load(file)
    table = state.get("live")
    live = _names([table.get("release")] if isinstance(table, dict) else [])
    kept, bad, pinned = (_names(state.get(key)) for key in ("previous", "bad", "pinned"))
    if verb == "unpin":
        chosen = pinned
    elif verb == "pin":
        chosen = [release for release in (*live, *kept) if release not in pinned]
    else:
        chosen = kept
    told = {"live": live, "pinned": pinned if verb != "unpin" else [], "rolled back from": bad}
    return [(item, ", ".join(what for what, them in told.items() if item in them)) for item in chosen]


def _names(value: object) -> list[str]:
    """What of it is a release's id."""
    items = value if isinstance(value, list) else []
    return [item for item in items if isinstance(item, str) and RELEASE_ID.fullmatch(item)]
