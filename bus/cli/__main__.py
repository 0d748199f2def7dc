"""Entry point of `python -m bus.cli`, for environments without the script `bus` on the path."""

from bus.cli import main

main()
