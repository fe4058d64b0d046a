"""``swapd demo``: a site, an embedded web server and the daemon in a scratch directory, without root."""
