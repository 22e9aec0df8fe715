"""`python -m ltnet_pl`."""

import sys

from ltnet_pl.cli import main

if __name__ == "__main__":
    sys.exit(main())
