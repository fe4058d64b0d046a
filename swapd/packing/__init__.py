"""Making tarballs: what ``swapd pack`` and ``swapd demo`` do. Nothing here runs on the host that is deployed to."""
