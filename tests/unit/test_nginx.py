"""nginx's configuration as ``nginx -T`` of Debian 12 prints it: what includes what, and what holds where."""

from __future__ import annotations

import pytest

from swapd.host.nginx import Place, find_places, find_upstreams, parse_dump, parse_time

DUMP = r"""# configuration file /etc/nginx/nginx.conf:
user www-data;
include /etc/nginx/modules-enabled/*.conf;

events {
	worker_connections 768;
	# multi_accept on;
}

http {

	##
	# Basic Settings
	##

	sendfile on;
	open_file_cache max=1000 inactive=20s;
	include /etc/nginx/conf.d/*.conf;
	include /etc/nginx/sites-enabled/*;
}

#mail {
#	server {
#		listen     localhost:110;
#	}
#}

# configuration file /etc/nginx/modules-enabled/50-mod-http-echo.conf:
load_module modules/ngx_http_echo_module.so;

# configuration file /etc/nginx/sites-enabled/shop:
upstream php { server unix:/run/php/php8.2-fpm.sock; server 127.0.0.1:9000 backup; }
server {
	listen 80;
	listen [::]:443 ssl;
	server_name shop.test "www.shop.test";
	root /var/www/shop/public;
	location / { try_files $uri $uri/ /index.php?$args; }
	location ~ "^/assets/[0-9a-f]{8}\.js$" { expires max; open_file_cache off; }
	location ~ \.php$ {
		include snippets/fastcgi-php.conf;
		fastcgi_pass php;
		if ($request_method = "PO\"ST{}") { return 405; }
	}
	location /media/ { alias '/srv/my media/'; }
	location /lua { content_by_lua_block { if x then y = {"}"} end -- {
	} root /srv/${host}/x; }
}

# configuration file /etc/nginx/snippets/fastcgi-php.conf:
# regex to split $uri to $fastcgi_script_name and $fastcgi_path
fastcgi_split_path_info ^(.+?\.php)(/.*)$;
fastcgi_index index.php;
include fastcgi.conf;

# configuration file /etc/nginx/fastcgi.conf:

fastcgi_param  SCRIPT_FILENAME    $document_root$fastcgi_script_name;
fastcgi_param  QUERY_STRING       $query_string;
fastcgi_param  DOCUMENT_ROOT      $document_root;

"""


@pytest.fixture(scope="module")
def places() -> dict[str, Place]:
    """By their locations."""
    return {place.location: place for place in reversed(list(find_places(parse_dump(DUMP))))}


def test_a_server_is_found_with_its_names_and_addresses(places: dict[str, Place]) -> None:
    assert places[""].names == ("shop.test", "www.shop.test")
    assert places[""].listens == ("80", "[::]:443")
    assert list(places) == ["/lua", "/media/", r"~ \.php$", r"~ ^/assets/[0-9a-f]{8}\.js$", "/", ""]


def test_a_location_has_what_its_server_has_and_its_own(places: dict[str, Place]) -> None:
    assert places["/"].directory == places[r"~ \.php$"].directory == "/var/www/shop/public"
    assert places["/media/"].directory == "/srv/my media/"
    assert places["/lua"].directory == "/srv/${host}/x"
    assert places["/"].value("open_file_cache") == "max=1000"
    assert places[r"~ ^/assets/[0-9a-f]{8}\.js$"].value("open_file_cache") == "off"


def test_what_is_included_stands_where_it_is_included(places: dict[str, Place]) -> None:
    php = places[r"~ \.php$"]
    assert php.value("fastcgi_pass") == "php"
    name = php.parameters["SCRIPT_FILENAME"]
    assert name.arguments[1] == "$document_root$fastcgi_script_name"
    assert (name.file, name.line) == ("/etc/nginx/fastcgi.conf", 2)
    assert (root := php.settings["root"]).file == "/etc/nginx/sites-enabled/shop"
    assert root.line == 6  # of the file, not of the dump
    assert not places["/"].parameters


def test_parameters_of_its_own_inherit_none() -> None:
    """As nginx has it: one fastcgi_param in a location, and those of the server are gone there."""
    text = """# configuration file /n.conf:
http { fastcgi_param A 1; server { fastcgi_param B 2; location /x { fastcgi_param C 3; } location /y { } } }"""
    found = {place.location: set(place.parameters) for place in find_places(parse_dump(text))}
    assert found == {"": {"B"}, "/x": {"C"}, "/y": {"B"}}


def test_upstreams_have_their_servers() -> None:
    assert find_upstreams(parse_dump(DUMP)) == {"php": ("unix:/run/php/php8.2-fpm.sock", "127.0.0.1:9000")}


def test_files_that_include_each_other_come_to_an_end() -> None:
    parse_dump("# configuration file /n.conf:\ninclude n.conf;\ninclude gone.conf;\n")


@pytest.mark.parametrize("text", ["", "nginx: configuration file test failed\n"])
def test_what_is_no_dump_is_told_from_one(text: str) -> None:
    with pytest.raises(ValueError, match="no configuration file"):
        parse_dump(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("75", 75), ("75s", 75), ("1m30s", 90), ("1m 30s", 90), ("500ms", 0.5), ("2h", 7200), ("x", None), ("", None)],
)
def test_times_as_nginx_reads_them(text: str, seconds: float | None) -> None:
    assert parse_time(text) == seconds
