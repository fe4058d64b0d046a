"""What somebody new does with README.md: who types each of its commands where, what must be there before, what comes.

**To add a command to the README, add it here**: as a ``Step``, or, if it cannot be run, as ``LeftOut`` with the reason.
``tests/unit/test_readme.py`` names those that are missing, and those that the README no longer has. Commands of blocks
are typed in the README's order; then those that only the text mentions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from tests.host.machine import Host
from tests.host.webhost import AUTHOR, SSH_CONFIG, UPLOADER, Site, WebHost
from tests.support.readme import README, Block, read_blocks

HOME = f"/home/{AUTHOR}"
KEY = f"{HOME}/.ssh/id_ed25519"
TREE = f"{HOME}/shop"  # a repository, whose public/ is the site
SIGNERS = "/etc/swapd/allowed_signers"
LIVE = "/var/www/shop"
SITE_FILE = "/etc/swapd/sites/shop.toml"
VHOST = """
<VirtualHost *:80>
    ServerName shop.test
    DocumentRoot /var/www/shop
    {include}
    <Directory /var/www/shop>
        Require all granted
        Options FollowSymLinks
    </Directory>
</VirtualHost>
"""


class Who(Enum):
    """Whose shell it is. What needs root's rights says ``sudo`` in the README, and is typed by root here."""

    AUTHOR = "the site's author, on a machine of their own"
    USER = "an ordinary user of the server"
    ROOT = "root on the server"


@dataclass(slots=True)
class Reader:
    """Somebody who types what the README says."""

    web: WebHost
    ids: dict[str, str] = field(default_factory=dict)  # of releases, by their names
    deployment: str = ""  # the last one's id

    @property
    def host(self) -> Host:
        return self.web.host

    @property
    def shop(self) -> Site:
        return Site(self.web, "shop", LIVE)

    def type(self, command: str, who: Who, *, check: bool = True) -> str:
        """What the command prints. The ids of the README are those of this host."""
        command = command.replace("SWAPD_DEPLOYMENT=ID", f"SWAPD_DEPLOYMENT={self.deployment}")
        for name, release in self.ids.items():
            command = command.replace(f"{name}@9f86d081884c", release)
        match who:
            case Who.AUTHOR:
                done = self.host.run("bash", "-c", f"cd {TREE} && {{ {command}\n}}", user=AUTHOR, check=check)
            case Who.USER:
                done = self.host.run("bash", "-c", command, user=UPLOADER, check=check)
            case Who.ROOT:
                done = self.host.run("bash", "-c", command, check=check)
        return done.stdout + done.stderr

    def change(self, name: str) -> None:
        """The author's tree becomes another release."""
        self.type(f"echo '{name}' > public/release.txt", Who.AUTHOR)

    def release(self, name: str) -> None:
        """A release of this name goes live, by what the README said already."""
        self.change(name)
        self.type(f"swapd pack ./public --name {name}", Who.AUTHOR)
        file_name = f"{name}.tar.gz"
        send = f"scp -q {file_name}.sha256 {file_name} deploy@web:/var/spool/swapd/shop/"
        marker = self.shop.outcome_after(lambda: self.type(send, Who.AUTHOR), file_name)
        assert marker.outcome == "live", marker.content
        self.ids[name], self.deployment = marker["release"], marker["deployment"]

    def configure(self, text: str) -> None:
        """Puts a line before the first table of the site's configuration, or a table behind it."""
        path = self.host.path(SITE_FILE)
        old = path.read_text()
        path.write_text(f"{old}\n{text}\n" if text.startswith("[") else f"{text}\n{old}")
        self.web.run("systemctl", "reload", "swapd")


def nothing(reader: Reader) -> None:
    """What most steps need before and after."""
    del reader


@dataclass(frozen=True, slots=True)
class Step:
    """A command that is typed. ``drops`` is the file whose marker is waited for then: it has to be a good one."""

    who: Who
    before: Callable[[Reader], None] = nothing
    after: Callable[[Reader], None] = nothing
    drops: str = ""
    status: int = 0  # what it ends with
    shows: str = ""  # what is in its output, beside what the README shows of it
    instead: tuple[str, str] = ("", "")  # what the command says, and what is typed for it


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A command that is not typed, and why."""

    reason: str


def begin(web: WebHost) -> Reader:
    """A server with Apache, people's files in the live path, swapd as it was installed; an author with a site."""
    reader = Reader(web)
    host = web.host
    host.write("/etc/hosts", f"127.0.0.1 localhost {host.run('hostname').stdout.strip()} web\n")
    host.write(f"{HOME}/.ssh/config", SSH_CONFIG)
    host.write(f"{LIVE}/index.html", "made by hand")
    host.write("/etc/apache2/sites-available/shop.conf", VHOST.format(include=""))
    web.run("a2ensite", "--quiet", "shop")
    web.run("systemctl", "reload", "apache2")
    web.run("gpasswd", "--delete", UPLOADER, "swapd")
    web.run("mkdir", TREE, user=AUTHOR)
    git = ("config user.name author", "config user.email author@example.com", "add .", "commit --quiet -m first")
    make = ["git init --quiet -b main", "mkdir public", "echo welcome > public/index.html", *(f"git {x}" for x in git)]
    reader.type(" && ".join(make), Who.AUTHOR)
    return reader


# The README's sections, from top to bottom --------------------------------------------------------------------


def several_releases(reader: Reader) -> None:
    reader.configure("keep = 9")
    for number in (38, 39, 41, 42):
        reader.release(f"shop-{number}")


def has(made_by: str) -> Callable[[Reader], None]:
    """What the README takes for granted on the server, by the command of root that makes it so."""

    def make(reader: Reader) -> None:
        reader.type(made_by, Who.ROOT)

    return make


def is_live(name: str) -> Callable[[Reader], None]:
    """Whether visitors get that release."""

    def look(reader: Reader) -> None:
        assert (reader.shop.tree() / "release.txt").read_text() == f"{name}\n"

    return look


def signed_rollback_heeded(reader: Reader) -> None:
    """The control file and its signature, at a site that asks for one; and the site as it was."""
    reader.host.write(SIGNERS, f"alice@example.com {reader.web.run('cat', f'{KEY}.pub')}")
    reader.configure('[verify]\nrequire = "signature"')
    send = "scp -q rollback.sig rollback deploy@web:/var/spool/swapd/shop/"
    marker = reader.shop.outcome_after(lambda: reader.type(send, Who.AUTHOR), "rollback")
    assert marker.outcome == "live", marker.content
    reader.type("rm rollback rollback.sig", Who.AUTHOR)


def add_signer(number: int) -> Callable[[Reader], None]:
    """Puts that line of the README's signers file, with a key, into the host's; alice's key is the author's."""

    def add(reader: Reader) -> None:
        lines = next(block.lines for block in blocks("") if block.lines[0].startswith("alice@"))
        key = f"{HOME}/key-{number}"
        reader.type(f"ssh-keygen -q -t ed25519 -N '' -f {key}", Who.AUTHOR)
        public = reader.web.run("cut", "-d ", "-f2", f"{KEY if number == 0 else key}.pub").strip()
        path = reader.host.path(SIGNERS)
        path.write_text(("" if number == 0 else path.read_text()) + lines[number].replace("AAAA…", public) + "\n")

    return add


def every_signer_may(reader: Reader) -> None:
    """The file holds for each of them, and what alice signed goes live."""
    add_signer(3)(reader)
    reader.change("signed")
    reader.type(f"swapd pack ./public --name shop-43 --sign {KEY}", Who.AUTHOR)
    reader.type("cp shop-43.tar.gz x", Who.AUTHOR)
    for number, (name, namespace) in enumerate([("alice", "swapd"), ("bob", "swapd:shop"), ("carol", "swapd")]):
        sign = f"ssh-keygen -q -Y sign -n {namespace} -f {KEY if number == 0 else f'{HOME}/key-{number}'} x"
        verify = f"ssh-keygen -Y verify -f {SIGNERS} -I {name}@example.com -n {namespace} -s x.sig < x"
        reader.type(f"rm -f x.sig && {sign} && {verify}", Who.AUTHOR)
    send = "scp -q shop-43.tar.gz* deploy@web:/var/spool/swapd/shop/"
    marker = reader.shop.outcome_after(lambda: reader.type(send, Who.AUTHOR), "shop-43.tar.gz")
    assert (marker.outcome, marker["signer"]) == ("live", "alice@example.com"), marker.content
    # On with what goes live without a signature.
    path = reader.host.path(SITE_FILE)
    path.write_text(path.read_text().replace('require = "signature"', 'require = "integrity"'))
    reader.web.run("systemctl", "reload", "swapd")


def releases_to_prune(reader: Reader) -> None:
    """As in the README's output, but for the numbers: two releases are past ``keep``, and cron sits in one."""
    reader.host.run("install", "/bin/sleep", "/usr/local/bin/cron")
    inside = f"--working-directory={LIVE}.releases/{reader.ids['shop-38']}"
    reader.host.run("systemd-run", "--quiet", "--unit=sitting", inside, "/usr/local/bin/cron", "infinity")
    path = reader.host.path(SITE_FILE)
    path.write_text(path.read_text().replace("keep = 9", "keep = 2"))


def after_pruning(reader: Reader) -> None:
    reader.host.run("systemctl", "stop", "sitting")
    path = reader.host.path(SITE_FILE)
    path.write_text(path.read_text().replace("keep = 2", "keep = 9"))
    reader.web.run("systemctl", "reload", "swapd")


def include_route(reader: Reader) -> None:
    """What the README has somebody write into the virtual host."""
    include = next(line for block in blocks("") for line in block.lines if line.startswith("IncludeOptional "))
    reader.host.write("/etc/apache2/sites-available/shop.conf", VHOST.format(include=include))


def changed_by_hand(reader: Reader) -> None:
    """Somebody puts a directory of theirs in the place of what is live."""
    reader.type(f"mv {LIVE} {LIVE}.old && mkdir {LIVE} && echo mine > {LIVE}/index.html", Who.ROOT)


SHOWS = "what the text speaks of, and another command shows"
OTHERS = "what people do without swapd; tests/benchmarks does it, too"
# Of a command that blocks have more than once: what is done the first time, the second time, and so on.
STEPS: dict[str, Step | Sequence[Step] | LeftOut] = {
    # Try it, install it
    "make demo": LeftOut("tests/host/test_fresh.py does it, as a newcomer on a fresh Debian"),
    "make demo DEMO=once": LeftOut("tests/host/test_fresh.py does it"),
    "make test": LeftOut("this run"),
    "sudo make install": LeftOut("installs with apt what make deb builds: what this host has"),
    "make deb": LeftOut("this host has that package"),
    "make wheel": LeftOut("make test runs make wheel-check"),
    # The first site
    "sudo swapd init shop --live /var/www/shop": Step(Who.ROOT),
    "sudo adduser deploy swapd": Step(Who.ROOT),
    "swapd pack ./public --name shop-1": Step(Who.AUTHOR),
    "scp shop-1.tar.gz* deploy@web:/var/spool/swapd/shop/": Step(Who.AUTHOR, drops="shop-1.tar.gz"),
    "tar czf shop-1.tar.gz public": Step(Who.AUTHOR),
    "ssh deploy@web ls /var/spool/swapd/shop": Step(Who.AUTHOR),
    "systemctl status swapd": Step(Who.USER),
    "swapd status shop": Step(Who.USER),
    # Packing
    "swapd pack ./public --name shop-2 --compress zstd": Step(Who.AUTHOR),
    "swapd pack --git main": Step(Who.AUTHOR),
    "sudo adduser git swapd": Step(Who.ROOT, before=has("useradd git")),
    "git push": LeftOut("tests/host/test_readme.py does it with the README's hook"),
    "ssh-keyscan web": Step(Who.AUTHOR),
    "scp shop-1.tar.gz deploy@web:/shop/": LeftOut("tests/host/test_init.py does it, as such a user"),
    "sh deploy.sh": LeftOut("tests/host/test_readme.py runs the block"),
    "pipx install ./swapd-*.whl": LeftOut("make wheel-check installs that wheel"),
    "pip install ./swapd-*.whl": LeftOut("make wheel-check installs that wheel"),
    # Rolling back
    "sudo swapd rollback shop": Step(Who.ROOT, several_releases, is_live("shop-41")),
    "sudo swapd rollback shop shop-41": Step(Who.ROOT, after=is_live("shop-41")),
    "touch rollback; scp rollback deploy@web:/var/spool/swapd/shop/": Step(
        Who.AUTHOR, after=is_live("shop-39"), drops="rollback"
    ),
    "touch rollback@shop-41; scp rollback@shop-41 deploy@web:/var/spool/swapd/shop/": Step(
        Who.AUTHOR, after=is_live("shop-41"), drops="rollback@shop-41"
    ),
    "echo 'shop-42@9f86d081884c' > rollback": Step(Who.AUTHOR, has("swapd rollback shop shop-42")),
    "ssh-keygen -Y sign -n swapd -f ~/.ssh/id_ed25519 rollback": Step(Who.AUTHOR, after=signed_rollback_heeded),
    # Who may deploy
    "swapd pack ./public --name shop-2 --sign ~/.ssh/id_ed25519": Step(Who.AUTHOR),
    "ssh-keygen -Y sign -n swapd -f ~/.ssh/id_ed25519 shop-1.tar.gz": Step(Who.AUTHOR),
    "alice@example.com ssh-ed25519 AAAA…": Step(Who.ROOT, add_signer(0), instead=("alice", "true alice")),
    'bob@example.com namespaces="swapd:shop" ssh-ed25519 AAAA…': Step(
        Who.ROOT, add_signer(1), instead=("bob", "true bob")
    ),
    'carol@example.com valid-before="20271231" ssh-ed25519 AAAA…': Step(
        Who.ROOT, add_signer(2), instead=("carol", "true carol")
    ),
    "*@example.com cert-authority ssh-ed25519 AAAA…": Step(Who.ROOT, every_signer_may, instead=("*", "true ")),
    "swapd init shop --live /var/www/shop --group shop-deploy": Step(
        Who.ROOT,
        before=has("groupadd shop-deploy"),
        instead=("shop --live /var/www/shop", "news --live /var/www/news"),
    ),
    "ssh-keygen -Y verify": LeftOut(SHOWS),
    # What is kept, and what goes
    "sudo swapd pin shop shop-41": Step(Who.ROOT, releases_to_prune),
    "sudo swapd prune shop": Step(Who.ROOT, after=after_pruning),
    "swapd init shop --live /var/www/shop": Step(
        Who.ROOT,
        before=changed_by_hand,
    ),
    "systemctl reload swapd": Step(Who.ROOT),
    # The configuration
    "sudo swapd check": (
        Step(Who.ROOT, has("chmod 2750 /var/spool/swapd/shop"), status=1),
        Step(Who.ROOT, has("chmod 2770 /var/spool/swapd/shop")),
    ),
    # One release for each request
    "sudo a2enmod rewrite && sudo systemctl restart apache2": Step(Who.ROOT),
    "sudo swapd init shop --live /var/www/shop --strategy pinned": Step(Who.ROOT),
    "IncludeOptional /etc/swapd/apache/shop.conf": Step(
        Who.ROOT, include_route, instead=("IncludeOptional", "apache2ctl -t # ")
    ),
    "sudo systemctl reload apache2 && sudo swapd check shop": Step(Who.ROOT),
    # What the text mentions
    "journalctl -u swapd": Step(Who.ROOT),
    "journalctl -u swapd -p warning -x": Step(Who.ROOT),
    "journalctl -u swapd SWAPD_DEPLOYMENT=ID": Step(Who.ROOT, shows="is live"),
    "ssh deploy@web swapd follow shop": Step(Who.AUTHOR, lambda reader: reader.release("shop-50"), shows="shop-50@"),
    "sha256sum *.tar.gz > SHA256SUMS": Step(Who.AUTHOR),
    "swapd check -v": Step(Who.ROOT),
    "sudo swapd init": Step(Who.ROOT, status=2),
    "swapd history": Step(Who.USER),
    "swapd resume": Step(Who.ROOT),
    "sysctl fs.inotify.max_user_instances": Step(Who.USER),
    "sftp reput": LeftOut("tests/host/test_drop_directory.py goes on with uploads in all three ways"),
    "rsync --append": LeftOut("tests/host/test_drop_directory.py does"),
    "curl -C -": LeftOut("tests/host/test_drop_directory.py does"),
    "killall -STOP; mv; mv; killall -CONT": LeftOut(OTHERS),
    "mv -T": LeftOut(OTHERS),
    "make bench": LeftOut("takes an hour, and nothing else may run"),
    "sudo make bench": LeftOut("takes an hour, and nothing else may run"),
    "make bench BENCH=php": LeftOut("takes long, and nothing else may run"),
    "make lint": LeftOut("make test does it"),
    "make soak": LeftOut("takes hours"),
}


def blocks(language: str, holding: str = "") -> Sequence[Block]:
    """The README's blocks of this language, those that have the text in them."""
    return [block for block in read_blocks(README.read_text()) if block.language == language and holding in block.text]


def script(holding: str) -> str:
    """The README's shell script that has the text in it."""
    (block,) = blocks("sh", holding)
    return block.text


def write_script(host: Host, path: str, content: str, owner: str) -> None:
    host.write(path, content, mode=0o755)
    host.run("chown", f"{owner}:", path)
