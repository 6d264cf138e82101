"""`python -m streams` is the command `freshrank`."""

from streams.cli import main

main()
