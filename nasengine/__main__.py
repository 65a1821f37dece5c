"""``python -m nasengine``: the command line, where its script is not on the shell's path."""

import sys

from nasengine.cli import main

if __name__ == "__main__":
    sys.exit(main())
