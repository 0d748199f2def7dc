"""`python -m bus.cli`, for environments in which the script `bus` is not on the path."""

from bus.cli import main

main()
