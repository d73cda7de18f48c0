"""`python -m pusa_app`: the command line."""

import sys

from pusa_app.cli import main

if __name__ == "__main__":
    sys.exit(main())
