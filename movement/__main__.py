"""`python -m movement`: the same as the console script."""

from movement.cli.main import main

main()
