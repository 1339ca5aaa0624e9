"""`python -m roofsim`."""

from roofsim.cli import main

main()
