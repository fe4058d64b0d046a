"""All that can be typed after ``swapd``. Written by packaging/completions/generate from the commands, not by hand."""

OPTIONS: dict[str, tuple[str | tuple[str, ...], str]] = {
    "--version": ("", "Show the version and exit"),
    "--root": ("directory", "Put every default path (/etc/swapd, /var/lib/swapd, …) below this directory"),
    "-h": ("", "Show this message and exit"),
    "--help": ("", "Show this message and exit"),
}

VERBS: dict[str, tuple[str, tuple[str, ...], dict[str, tuple[str | tuple[str, ...], str]]]] = {
    "init": (
        "Configure a site and make its directories",
        ("site",),
        {
            "--live": ("file", "The path that httpd serves: a directory, a symbolic link, or not there yet"),
            "--strategy": (
                ("auto", "exchange", "symlink", "rename", "pinned"),
                "How releases take each other's place; with pinned, what the web server has to include is written, too",
            ),
            "--route": ("", "Write what the web server includes for pinned: auto takes that once it is in force"),
            "--no-route": ("", ""),
            "--document-root": ("directory", "With a route: the directory of a release that visitors get"),
            "--owner": ("value", "Who owns the releases"),
            "--group": ("group", "Whose members may drop tarballs"),
            "--restart": ("", "Restart the unit, so that its sandbox takes the site in"),
            "--no-restart": ("", ""),
            "-y": ("", "Take what is proposed, where there is nothing to choose"),
            "--yes": ("", "Take what is proposed, where there is nothing to choose"),
            "-h": ("", "Show this message and exit"),
            "--help": ("", "Show this message and exit"),
        },
    ),
    "check": (
        "Validate the configuration and this host",
        ("site",),
        {
            "-v": ("", "Also what is only good to know"),
            "--verbose": ("", "Also what is only good to know"),
            "--json": ("", "Print one JSON document"),
            "-h": ("", "Show this message and exit"),
            "--help": ("", "Show this message and exit"),
        },
    ),
    "deploy": (
        "Deploy a tarball now",
        ("site", "tarball"),
        {
            "--wait": ("value", "Wait so long for a deployment under way"),
            "--json": ("", "Print one JSON document"),
            "-h": ("", "Show this message and exit"),
            "--help": ("", "Show this message and exit"),
        },
    ),
    "follow": (
        "Show a deployment as it goes; its outcome is the exit status",
        ("site", "dropped"),
        {
            "--deployment": ("value", "The deployment of this id, or of one that begins so"),
            "--timeout": (
                "value",
                "End with 5 once nothing has been under way, nor has changed, for so long; 0: never",
            ),
            "--json": ("", "Print a JSON document on a line of its own for each step"),
            "-h": ("", "Show this message and exit"),
            "--help": ("", "Show this message and exit"),
        },
    ),
    "rollback": (
        "Make a kept release live again",
        ("site", "release"),
        {
            "--wait": ("value", "Wait so long for a deployment under way"),
            "--json": ("", "Print one JSON document"),
            "-h": ("", "Show this message and exit"),
            "--help": ("", "Show this message and exit"),
        },
    ),
    "status": (
        "What is live, under way, waiting, and what went wrong last",
        ("site",),
        {
            "--json": ("", "Print one JSON document"),
            "-h": ("", "Show this message and exit"),
            "--help": ("", "Show this message and exit"),
        },
    ),
    "history": (
        "The deployments, newest first",
        ("site",),
        {
            "-n": ("value", "So many, the newest"),
            "--number": ("value", "So many, the newest"),
            "-v": ("", "Also how long each stage took, and all who had a part in it"),
            "--verbose": ("", "Also how long each stage took, and all who had a part in it"),
            "--json": ("", "Print one JSON document"),
            "-h": ("", "Show this message and exit"),
            "--help": ("", "Show this message and exit"),
        },
    ),
    "prune": (
        "Remove the releases past keep",
        ("site",),
        {
            "--wait": ("value", "Wait so long for a deployment under way"),
            "-h": ("", "Show this message and exit"),
            "--help": ("", "Show this message and exit"),
        },
    ),
    "pin": (
        "Keep a release whatever keep says",
        ("site", "release"),
        {
            "--wait": ("value", "Wait so long for a deployment under way"),
            "-h": ("", "Show this message and exit"),
            "--help": ("", "Show this message and exit"),
        },
    ),
    "unpin": (
        "Let a pinned release go in its time",
        ("site", "release"),
        {
            "--wait": ("value", "Wait so long for a deployment under way"),
            "-h": ("", "Show this message and exit"),
            "--help": ("", "Show this message and exit"),
        },
    ),
    "pack": (
        "Write a tarball with its digest",
        ("directory",),
        {
            "--git": ("ref", "Pack a commit of the repository here, as git archive does"),
            "--output": ("file", "Where to write: NAME.tar.gz, or a directory"),
            "--name": ("value", "The release's name, instead of one made of the directory's or commit's"),
            "--sign": ("file", "Sign with this SSH key"),
            "--namespace": ("value", "What the signature is for: swapd for every site, swapd:SITE for one"),
            "--compress": (("gzip", "zstd", "xz", "none"), "How to compress"),
            "--force": ("", "Replace a tarball that is there already"),
            "-h": ("", "Show this message and exit"),
            "--help": ("", "Show this message and exit"),
        },
    ),
    "resume": (
        "Resume whatever swapd stopped; safe at any time",
        (),
        {"-h": ("", "Show this message and exit"), "--help": ("", "Show this message and exit")},
    ),
    "demo": (
        "A site, a web server and the daemon in a scratch directory",
        (),
        {
            "--once": ("", "Deploy two releases, show status, history and log, and end"),
            "--directory": ("directory", "Where: an empty directory, or none yet"),
            "-h": ("", "Show this message and exit"),
            "--help": ("", "Show this message and exit"),
        },
    ),
    "run": (
        "The daemon: what the systemd unit starts",
        (),
        {"-h": ("", "Show this message and exit"), "--help": ("", "Show this message and exit")},
    ),
}
