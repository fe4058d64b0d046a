"""The rules for names and for the targets of links, as values: nothing here touches a disk.

A name is accepted when every program that will ever read the tree takes it for the same thing: relative, of plain
components, valid UTF-8, without control characters, short enough for every filesystem.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection
from typing import NamedTuple

from swapd.archive.fingerprints import Fingerprints
from swapd.archive.limits import MAX_COMPONENT_BYTES, MAX_LINK_HOPS, MAX_PATH_BYTES
from swapd.model.errors import Rejected
from swapd.model.release import printable

Parts = tuple[str, ...]  # a path's components below the staging directory; () is the directory itself

# Control characters, and the separators of lines and paragraphs that some programs take for line ends. Format
# characters (Cf) stay allowed: Persian and emoji names need joiners.
FORBIDDEN_CATEGORIES = ("Cc", "Zl", "Zp")
RENAME = "Rename the file and pack again."
OUTSIDE = "/"


class Name(NamedTuple):
    """A member's name: its components, and what stood around them. A tuple: there is one for each member."""

    parts: Parts
    is_dotted: bool  # began with `./`, or is `.` itself
    is_slashed: bool  # ended in a slash

    def stripped(self, count: int) -> Parts | None:
        """Without its first ``count`` components; None where nothing is left.

        As GNU tar does, a leading dot is a component too.
        """
        if count == 0:
            return self.parts
        rest = self.parts[count - self.is_dotted :]
        return rest or None


def shown(raw: bytes) -> str:
    """Bytes from an archive, fit for a message."""
    return printable(raw.decode("utf-8", "surrogateescape"))


def parse_name(raw: bytes, max_depth: int) -> Name:
    """The name of a member or of a hard link's target; ``Rejected`` unless it follows every rule."""
    text = _decoded(raw, "name")
    if text.startswith("/"):
        raise Rejected.because(
            "absolute-name", f"{printable(text)} is an absolute name", "Pack relative to the release's own directory."
        )
    is_slashed = text.endswith("/")
    parts = tuple((text[:-1] if is_slashed else text).split("/"))
    is_dotted = parts[0] == "."
    if is_dotted:
        parts = parts[1:]
    for part in parts:
        if part in ("", ".", ".."):
            _refuse_component(part, text)
    if len(raw) > MAX_COMPONENT_BYTES:
        _check_lengths(raw, text)
    if len(parts) > max_depth:
        raise Rejected.because(
            "too-deep",
            f"{printable(text)} is {len(parts)} directories deep, and {max_depth} are allowed",
            "Pack a tree that is less deep.",
        )
    return Name(parts, is_dotted, is_slashed)


def _decoded(raw: bytes, what: str) -> str:
    if not raw:
        raise Rejected.because("empty-name", f"a member has an empty {what}", "Pack the tarball again.")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise Rejected.because("name-not-utf8", f"the {what} {shown(raw)} is not valid UTF-8", RENAME) from None
    # isprintable() is false for more than is forbidden, but true for nothing that is: most names end here.
    if not text.isprintable() and any(unicodedata.category(each) in FORBIDDEN_CATEGORIES for each in text):
        raise Rejected.because("control-character", f"the {what} {printable(text)} holds a control character", RENAME)
    return text


def _refuse_component(part: str, text: str) -> None:
    if part == "..":
        raise Rejected.because(
            "parent-name", f"{printable(text)} leads upwards by ..", "Pack relative to the release's own directory."
        )
    what = "an empty component" if part == "" else "a component that is a dot"
    raise Rejected.because("not-a-plain-name", f"{printable(text)} has {what}", "Pack again with plain names.")


def _check_lengths(raw: bytes, text: str) -> None:
    if len(raw) > MAX_PATH_BYTES:
        raise Rejected.because(
            "name-too-long", f"{printable(text)} has {len(raw)} bytes, and {MAX_PATH_BYTES} are possible", RENAME
        )
    for part in raw.split(b"/"):
        if len(part) > MAX_COMPONENT_BYTES:
            raise Rejected.because(
                "name-too-long",
                f"in {printable(text)} one component has {len(part)} bytes, and {MAX_COMPONENT_BYTES} are possible",
                RENAME,
            )


class NormalForms:
    """Refuses two names in one directory that differ only by their Unicode normal form.

    Filesystems that normalise (APFS, ZFS and ext4 where told to) take them for one, and people cannot tell them
    apart. Names that differ by case are two names on Linux; where the filesystem folds case, creating the second
    one fails and is refused then (two directories become one there, with the files of both).

    One number for each name that is not ASCII is all that is kept.
    """

    def __init__(self) -> None:
        self._seen = Fingerprints()

    def add(self, parent: Parts, part: str) -> None:
        """Notes a name that has just come to be; ``Rejected`` if its like was there."""
        if part.isascii():
            return
        normal = unicodedata.normalize("NFC", part)
        # A few characters (the kelvin sign, the Greek question mark) normalise to ASCII ones.
        if normal.isascii() or not self._seen.add(hash((parent, normal))):
            raise Rejected.because(
                "name-collision",
                f"{printable('/'.join((*parent, part)))} looks the same as another name and differs only in its "
                "Unicode normal form",
                RENAME,
            )


def parse_target(raw: bytes, name: bytes, max_depth: int, allowed: Collection[str] = ()) -> str:
    """A symlink's target as it will be made; ``Rejected`` unless it is relative and of plain components.

    ``allowed`` are absolute paths: a target that is one of them, or lexically below one, may be absolute. What stands
    there, links included, is the administrator's affair.

    In a relative one `..` is allowed at the beginning only. Behind a directory's name it would depend on what that
    directory is when the link is followed, and a shared path may take its place after the release was checked.
    """
    if not raw:
        raise Rejected.because("symlink-empty", f"{shown(name)} is a symlink to nothing", "Pack the tarball again.")
    text = _decoded(raw, f"target of the symlink {shown(name)}:")
    _check_lengths(raw, text)
    if text.startswith("/"):
        if not _is_below(text, allowed):
            raise Rejected.because(
                "symlink-absolute",
                f"{shown(name)} is a symlink to the absolute path {printable(text)}",
                "Link relative to the link's own directory. What [verify] allow_links_to of the site names is "
                "allowed, written plainly.",
            )
        return text
    parts = [part for part in text.split("/") if part not in ("", ".")]
    upwards = next((at for at, part in enumerate(parts) if part != ".."), len(parts))
    if ".." in parts[upwards:]:
        raise Rejected.because(
            "symlink-not-plain",
            f"{shown(name)} is a symlink to {printable(text)}, which goes down and up again",
            "Write the target without the detour.",
        )
    if max(upwards, len(parts) - upwards) > max_depth:
        raise _target_too_deep(shown(name))
    return text


def _is_below(target: str, allowed: Collection[str]) -> bool:
    """Whether the absolute path is one of ``allowed`` or below one, whoever reads it: without `.`, `..`, `//`."""
    # A last slash is all that may differ from the normal form.
    parts = target.removesuffix("/").split("/")[1:]
    if not parts or {"", ".", ".."} & set(parts):
        return False
    return any(parts[: len(top)] == top for top in (path.split("/")[1:] for path in allowed))


def _target_too_deep(name: str) -> Rejected:
    return Rejected.because(
        "too-deep",
        f"the target of the symlink {name} is deeper than any directory of the release may be",
        "Link to what is in the release.",
    )


class LinkResolver:
    """Follows the symlinks of a finished tree, all of them known, as the kernel would.

    ``links`` maps the path of each symlink to its target. Each is walked once, however many lead to it.
    """

    def __init__(self, links: dict[str, str], max_depth: int) -> None:
        self._links = links
        self._max_depth = max_depth
        self._resolved: dict[str, tuple[Parts, int]] = {}
        self._depth = 0  # links that lead to the one that is being walked

    def check_all(self, progress: Callable[[], None]) -> None:
        """``Rejected`` unless every symlink ends inside the tree, or where an absolute target led it.

        One whose target is not there is allowed: shared paths come to be later. Absolute targets are those that
        ``parse_target`` let pass.
        """
        for count, path in enumerate(self._links):
            if count % 256 == 0:
                progress()
            self.resolve(path)

    def resolve(self, path: str) -> tuple[Parts, int]:
        """Where the symlink ends, and how many links were followed; ``Rejected`` when outside, or for a loop.

        A place that an absolute target led to begins with the component ``OUTSIDE``, which no name in a tree is.
        """
        known = self._resolved.get(path)
        if known:
            return known
        if self._depth == MAX_LINK_HOPS:
            raise self._loop(path)
        self._depth += 1
        place, hops = self._walk(path)
        self._depth -= 1
        self._resolved[path] = place, hops
        return place, hops

    def _walk(self, path: str) -> tuple[Parts, int]:
        target = self._links[path]
        if target.startswith("/"):
            return (OUTSIDE, *target.strip("/").split("/")), 1
        place = list(path.split("/")[:-1])
        hops = 1
        for part in target.split("/"):
            if part in ("", "."):
                continue
            if part == "..":
                if not place or place[0] == OUTSIDE:
                    raise self._escape(path)
                place.pop()
                continue
            place.append(part)
            here = "/".join(place)
            if here in self._links:
                end, followed = self.resolve(here)
                place = list(end)
                hops += followed
                if hops > MAX_LINK_HOPS:
                    raise self._loop(path)
            if len(place) > self._max_depth:
                raise _target_too_deep(printable(path))
        return tuple(place), hops

    def _escape(self, path: str) -> Rejected:
        return Rejected.because(
            "symlink-outside",
            f"{printable(path)} is a symlink to {printable(self._links[path])}, which leads out of the release",
            "Link to what is in the release, or keep it in a shared path.",
        )

    def _loop(self, path: str) -> Rejected:
        return Rejected.because(
            "symlink-loop",
            f"{printable(path)} is a symlink to {printable(self._links[path])}, which leads back to itself or through "
            f"more than {MAX_LINK_HOPS} links",
            "Link to the file itself.",
        )
