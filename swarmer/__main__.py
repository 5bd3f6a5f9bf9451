"""`python -m swarmer` is `swarmer`."""

from swarmer.cli import main

main()
