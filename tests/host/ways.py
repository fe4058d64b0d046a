"""How a tarball comes to a host from elsewhere: the programs that authors of sites have, and what they go on with."""

from __future__ import annotations

from enum import Enum

UPLOADER = "deploy"  # an ordinary user of the host, in the group swapd
AUTHOR = "laptop"  # who sits elsewhere and has the key


class Way(Enum):
    """A program and how it is used."""

    SCP = "scp"  # over the SFTP protocol
    SCP_LEGACY = "scp -O"
    SFTP = "sftp put"
    SFTP_RENAME = "sftp put, then rename"  # posix-rename@openssh.com: one rename
    SFTP_LEGACY_RENAME = "sftp put, then rename -l"  # link and unlink
    RSYNC = "rsync"
    RSYNC_PARTIAL = "rsync --partial"
    RSYNC_INPLACE = "rsync --inplace"
    CURL_SFTP = "curl sftp://"
    CURL_SCP = "curl scp://"

    def command(self, source: str, target: str) -> tuple[list[str], str]:
        """The author's command line, and what goes to its standard input."""
        return _filled(_COMMANDS[self], source, target)

    def resuming(self, source: str, target: str) -> tuple[list[str], str]:
        """The same for an upload that was cut off: goes on from there where the program can, else from the start."""
        return _filled(_RESUMING.get(self, _COMMANDS[self]), source, target)

    def slowly(self, command: list[str], kilobytes: float) -> list[str]:
        """The command line that sends about so many kilobytes a second."""
        limits = {"rsync": [f"--bwlimit={max(1, round(kilobytes))}"], "curl": ["--limit-rate", f"{round(kilobytes)}k"]}
        return [command[0], *limits.get(command[0], [f"-l{round(8 * kilobytes)}"]), *command[1:]]


def _filled(template: tuple[list[str], str], source: str, target: str) -> tuple[list[str], str]:
    command, stdin = template
    return [word.format(source=source, target=target) for word in command], stdin.format(source=source, target=target)


_SFTP = ["sftp", "-q", "-b", "-", "web"]
_CURL = [
    *("curl", "--silent", "--show-error", "--insecure"),  # it knows no host's key
    *("--user", f"{UPLOADER}:", "--key", f"/home/{AUTHOR}/.ssh/id_ed25519", "--upload-file", "{source}"),
]
_PUT_PART = 'put "{source}" "{target}.part"\n'
_COMMANDS = {
    Way.SCP: (["scp", "-q", "{source}", "web:{target}"], ""),
    Way.SCP_LEGACY: (["scp", "-q", "-O", "{source}", "web:{target}"], ""),
    Way.SFTP: (_SFTP, 'put "{source}" "{target}"\n'),
    Way.SFTP_RENAME: (_SFTP, _PUT_PART + 'rename "{target}.part" "{target}"\n'),
    Way.SFTP_LEGACY_RENAME: (_SFTP, _PUT_PART + 'rename -l "{target}.part" "{target}"\n'),
    Way.RSYNC: (["rsync", "--times", "{source}", "web:{target}"], ""),
    Way.RSYNC_PARTIAL: (["rsync", "--times", "--partial", "{source}", "web:{target}"], ""),
    Way.RSYNC_INPLACE: (["rsync", "--times", "--inplace", "{source}", "web:{target}"], ""),
    Way.CURL_SFTP: ([*_CURL, "sftp://127.0.0.1{target}"], ""),
    Way.CURL_SCP: ([*_CURL, "scp://127.0.0.1{target}"], ""),
}
_RESUMING = {
    Way.SFTP: (_SFTP, 'reput "{source}" "{target}"\n'),
    Way.RSYNC_INPLACE: (["rsync", "--times", "--append", "{source}", "web:{target}"], ""),
    Way.CURL_SFTP: ([*_CURL, "--continue-at", "-", "sftp://127.0.0.1{target}"], ""),
}
