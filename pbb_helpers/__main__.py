"""`python -m pbb_helpers` is the command `pbb`."""

from pbb_helpers.cli import main

main()
