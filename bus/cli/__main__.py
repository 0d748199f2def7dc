"""`python -m bus.cli`, where the script `bus` is not on the path."""

from bus.cli import main

main()
