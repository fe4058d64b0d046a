"""The demo's site: a page that says which release it is, and shows the next one as soon as that is live."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from string import Template

VERSION_FILE = "version.txt"

_INDEX = Template("""\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Shop $version</title>
<link rel="icon" href="assets/mark.svg">
<link rel="stylesheet" href="assets/style.css">
<main>
  <img src="assets/mark.svg" alt="" width="96" height="96">
  <h1>Release $version</h1>
  <p>$words</p>
  <p class="note">This page asks for <code>$version_file</code> every second, and loads itself again when another
  release is live.</p>
</main>
<script src="assets/follow.js" data-version="$version"></script>
""")

_STYLE = Template("""\
:root { color-scheme: light dark; --colour: $colour; }
body {
  margin: 0; min-height: 100vh; display: grid; place-items: center;
  font: 1.1rem/1.6 system-ui, sans-serif;
  background: linear-gradient(160deg, color-mix(in srgb, var(--colour) 30%, Canvas), Canvas 70%);
}
main { max-width: 34rem; padding: 2rem; text-align: center; }
h1 { margin: .4em 0 0; font-size: clamp(2.5rem, 10vw, 5rem); line-height: 1.1; color: var(--colour); }
.note { font-size: .85rem; opacity: .7; }
""")

_MARK = Template("""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 96 96">
  <circle cx="48" cy="48" r="44" fill="$colour"/>
  <path d="M26 40h38l-9-9M70 56H32l9 9" fill="none" stroke="#fff" stroke-width="7" stroke-linecap="round"
    stroke-linejoin="round"/>
</svg>
""")

_FOLLOW = Template("""\
const shown = document.currentScript.dataset.version;
setInterval(async () => {
  try {
    const live = (await (await fetch("$version_file", {cache: "no-store"})).text()).trim();
    if (live && live !== shown) location.reload();
  } catch { /* the server is away; the next second asks again */ }
}, 1000);
""")


@dataclass(frozen=True, slots=True)
class Edition:
    """One release of the demo's site."""

    version: int
    words: str
    colour: str

    @property
    def name(self) -> str:
        """The release's name."""
        return f"shop-{self.version}"

    def files(self) -> dict[str, str]:
        """Its files, by their paths."""
        values = {
            "version": self.version,
            "words": self.words,
            "colour": self.colour,
            "version_file": VERSION_FILE,
        }
        return {
            "index.html": _INDEX.substitute(values),
            "assets/style.css": _STYLE.substitute(values),
            "assets/mark.svg": _MARK.substitute(values),
            "assets/follow.js": _FOLLOW.substitute(values),
            VERSION_FILE: f"{self.version}\n",
        }


BY_HAND = Edition(0, "A directory that somebody filled by hand, before swapd came.", "#6b7280")
FIRST = Edition(1, "Verified, extracted beside the old tree, and swapped while httpd was paused.", "#0f8b8d")
SECOND = Edition(2, "Dropped by you. The release before this one is kept.", "#d9480f")


def write_site(edition: Edition, directory: Path) -> None:
    """Writes the edition's files below ``directory``, which is made where it is missing."""
    for path, text in edition.files().items():
        file = directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
