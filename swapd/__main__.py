"""``python -m swapd``."""

from swapd.cli import main

main()
