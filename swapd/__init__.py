"""swapd: one scp deploys a site behind Apache httpd."""

__version__ = "0.1.0"
