"""``swapd pack``: a directory or a git commit as a tarball, with its digest and signature, ready for scp."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import click

from swapd.model.errors import UsageError
from swapd.model.layout import Layout
from swapd.model.release import Compression
from swapd.model.sshsig import NAMESPACE
from swapd.model.units import format_size
from swapd.packing.ignored import LeftOut
from swapd.packing.sources import Source, commit_source, directory_source
from swapd.packing.tarball import SUFFIXES, Packed, pack, parse_output_name

PATH = click.Path(path_type=Path)


@click.command("pack")
@click.argument("directory", required=False, type=PATH)
@click.option("--git", "ref", metavar="REF", help="Pack a commit of the repository here, as git archive does.")
@click.option("--output", metavar="FILE", type=PATH, help="Where to write: NAME.tar.gz, or a directory. [default: .]")
@click.option("--name", metavar="NAME", help="The release's name, instead of one made of the directory's or commit's.")
@click.option(
    "--sign",
    "key",
    metavar="KEY",
    type=PATH,
    help="Sign with this SSH key. Its public half will do where an agent has it.",
)
@click.option(
    "--namespace",
    metavar="NAMESPACE",
    help="What the signature is for: swapd for every site, swapd:SITE for one. [default: swapd]",
)
@click.option(
    "--compress",
    type=click.Choice([compression.value for compression in SUFFIXES]),
    help="How to compress. [default: as --output is named, else gzip]",
)
@click.option("--force", "is_forced", is_flag=True, help="Replace a tarball that is there already.")
def command(
    directory: Path | None,
    ref: str | None,
    output: Path | None,
    name: str | None,
    key: Path | None,
    namespace: str | None,
    compress: str | None,
    is_forced: bool,
) -> None:
    """Writes a tarball of DIRECTORY, or of a commit, with its digest beside it.

    The same tree gives the same bytes, if the compressor's version is the same, too; --compress none needs none. Every
    file bears one time: SOURCE_DATE_EPOCH if it is set, else the commit's, else that of the newest file.

    What .swapdignore in the directory's (or the commit's) root names in the syntax of .gitignore is left out, and so
    are that file itself, .git, .hg and .svn, and of a commit what has export-ignore.
    """
    if (directory is None) == (ref is None):
        raise UsageError("what-to-pack", "pack takes a directory or --git REF, one of them", "Try: swapd pack .")
    if key is not None and not key.is_file():
        raise UsageError("no-such-key", f"{key} is no key", "Make one with: ssh-keygen -t ed25519 -f KEY")
    if namespace is not None and key is None:
        raise UsageError("namespace-of-what", "--namespace is that of a signature", "Add --sign KEY.")
    reading = commit_source(ref, Path.cwd()) if ref else nullcontext(directory_source(directory or Path.cwd()))
    with reading as source:
        target = choose_output(source, output, name, Compression(compress) if compress else None)
        if directory is not None:
            refuse_inside(target, directory)
        packed = pack(source, target, key, is_forced=is_forced, namespace=namespace or NAMESPACE)
    show(packed, source.left_out)


def choose_output(source: Source, output: Path | None, name: str | None, compression: Compression | None) -> Path:
    """Where the tarball goes, by the options; ``UsageError`` where they contradict each other."""
    if output is None or output.is_dir():
        file_name = (name or source.name) + SUFFIXES[compression or Compression.GZIP]
        parse_output_name(file_name)
        return Path(output or "") / file_name
    if name is not None:
        raise UsageError("name-twice", f"--output {output} names the release already", "Leave --name out.")
    if compression not in {None, parse_output_name(output.name)[1]}:
        raise UsageError(
            "bad-compression", f"{output} does not end in {SUFFIXES[compression]}", "Leave --compress out."
        )
    return output


def refuse_inside(target: Path, directory: Path) -> None:
    """``UsageError`` where the tarball would become part of the tree, and so of the next tarball."""
    if Path(os.path.realpath(target.parent)).is_relative_to(os.path.realpath(directory)):
        raise UsageError(
            "output-inside-tree",
            f"{target} would lie in the very tree that is packed",
            "Name a place outside: --output ..",
        )


def show(packed: Packed, left_out: Sequence[LeftOut]) -> None:
    """Says what was written and what was not, and what to type next."""
    files = "1 file" if packed.files == 1 else f"{packed.files} files"
    click.echo(f"{packed.tarball}: {files}, {format_size(packed.size)}")
    for sidecar in packed.sidecars:
        click.echo(sidecar)
    for what in left_out:
        click.echo(what)
    layout = click.get_current_context().find_object(Layout) or Layout()
    directory = Path(os.path.realpath(packed.tarball.parent))
    if directory.parent == Path(os.path.realpath(layout.spool)):  # as in a hook on the server
        site, file_name = directory.name, packed.tarball.name
        click.echo(f"\nNow in the drop directory of {site}. What becomes of it: swapd follow {site} {file_name}")
        return
    # Sidecars first: the receiver then knows a tarball that is cut short from a whole one, and need not wait.
    sent = shlex.join(map(str, (*packed.sidecars, packed.tarball)))
    click.echo(f"\nNext, to deploy it to a site of a host:\n\n  scp {sent} USER@HOST:{layout.spool}/SITE/")
