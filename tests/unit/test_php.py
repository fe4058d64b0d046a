"""PHP's settings, from what Debian's PHP 8.2 prints, and from files as its php-fpm has them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from swapd.host.php import Pool, Settings, find_pools, parse_info, read_pools
from tests.support.waiting import wait_until

INFO = """\
phpinfo()
PHP Version => 8.2.36

Server API => Command Line Interface
Loaded Configuration File => /etc/php/8.2/apache2/php.ini
Scan this dir for additional .ini files => /etc/php/8.2/apache2/conf.d
Additional .ini files parsed => /etc/php/8.2/apache2/conf.d/10-opcache.ini,
/etc/php/8.2/apache2/conf.d/20-ctype.ini

Directive => Local Value => Master Value
realpath_cache_ttl => 120 => 120
opcache.enable => On => On
opcache.file_cache => no value => no value
opcache.memory_consumption => 128 => 128
opcache.revalidate_freq => 2 => 60
opcache.use_cwd => Off => On
"""


def settings(**values: str) -> Settings:
    return Settings("mod_php", "/etc/php.ini", {name.replace("__", "."): value for name, value in values.items()})


def test_what_a_page_has_is_told() -> None:
    found = Settings("mod_php", "/etc/php.ini", parse_info(INFO))
    assert found.is_on("opcache.enable")
    assert not found.is_on("opcache.use_cwd")
    assert not found.is_on("opcache.unheard_of")
    assert found.number("opcache.revalidate_freq") == 2
    assert found.number("realpath_cache_ttl") == 120
    assert found.values["opcache.file_cache"] == ""


def test_what_a_pool_or_a_virtual_host_sets_wins() -> None:
    found = settings(opcache__enable="On").having("pool", {"opcache.enable": "0"}, {"opcache.enable": "/www.conf"})
    assert not found.is_on("opcache.enable")
    assert found.find_place("opcache.enable") == "/www.conf"


def test_the_file_that_makes_a_setting_is_named(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("php.ini", "10.ini", "20.ini", "gone.ini")]
    for file, text in zip(files, ("a = 1\n;b = 1\n", "  a=2\n", "ab = 3\n"), strict=False):
        file.write_text(text)
    main, *others = map(str, files)
    found = Settings("mod_php", main, {}, others=tuple(others))
    assert found.find_place("a") == str(files[1])
    assert found.find_place("b") == main  # nobody makes it: there it would be written
    assert found.find_place("ab") == str(files[2])


def test_pools_are_read_with_what_they_include(tmp_path: Path) -> None:
    main, own, other = (tmp_path / name for name in ("php-fpm.conf", "pool.d/www.conf", "pool.d/shop.conf"))
    own.parent.mkdir()
    main.write_text(f"[global]\npid = /run/php.pid\n; include=/nonsense\ninclude={own.parent}/*.conf\ninclude={main}\n")
    own.write_text("[www]\nuser = www-data ; or another\nlisten = /run/php/php8.2-fpm.sock\n;listen = 9000\n")
    other.write_text(
        "[shop]\nlisten = 127.0.0.1:9001\nrequest_terminate_timeout = 2m\n"
        'php_admin_value[error_log] = "/var/log/$pool.log"\nphp_flag[opcache.enable] = off\n'
    )
    shop, www = read_pools(main)
    assert (www.name, www.listen, www.terminate_timeout, www.file) == ("www", "/run/php/php8.2-fpm.sock", 0, str(own))
    assert (shop.name, shop.listen, shop.terminate_timeout) == ("shop", "127.0.0.1:9001", 120)
    assert shop.values == {"error_log": "/var/log/shop.log", "opcache.enable": "off"}


@pytest.mark.parametrize(
    ("listen", "address", "is_it"),
    [
        ("/run/php/www.sock", "/run/php/www.sock", True),
        ("/run/php/www.sock", "/run/php/shop.sock", False),
        ("9000", "127.0.0.1:9000", True),
        ("127.0.0.1:9000", "localhost:9000", True),
        ("127.0.0.1:9000", "127.0.0.1:9001", False),
        ("[::1]:9000", "[::1]:9000", True),
        ("192.0.2.1:9000", "127.0.0.1:9000", False),
        ("192.0.2.1:9000", "192.0.2.1:9000", True),
        ("/run/php/www.sock", "127.0.0.1:9000", False),
    ],
)
def test_a_pool_is_known_by_its_address(listen: str, address: str, is_it: bool) -> None:
    assert Pool("www", "www.conf", listen).listens_at(address) is is_it


def test_a_pool_is_known_by_another_path_to_its_socket(tmp_path: Path) -> None:
    (tmp_path / "var").symlink_to("run")
    assert Pool("www", "www.conf", f"{tmp_path}/run/www.sock").listens_at(f"{tmp_path}/var/www.sock")


@pytest.mark.root
@pytest.mark.parametrize(("user", "count"), [("0", 1), ("54321", 0)])
def test_only_roots_own_php_fpm_is_asked(tmp_path: Path, user: str, count: int) -> None:
    """Its program is run by root: anybody may have a process of this title."""
    configuration = tmp_path / "php-fpm.conf"
    configuration.write_text("[www]\nlisten = 9000\n")
    title = f"php-fpm: master process ({configuration})"
    command = ["setpriv", f"--reuid={user}", "--clear-groups", "bash", "-c", 'exec -a "$0" sleep 60', title]
    with subprocess.Popen(command) as process:
        try:
            line = Path(f"/proc/{process.pid}/cmdline")
            wait_until(lambda: line.read_bytes().startswith(title.encode()), "its title")
            found = [pool for pool in find_pools() if pool.file == str(configuration)]
        finally:
            process.kill()
    assert [(pool.name, Path(pool.program).name) for pool in found] == [("www", "sleep")] * count
