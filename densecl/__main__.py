"""`python -m densecl`, and with it `torchrun -m densecl`."""

import sys

from densecl.cli import main

if __name__ == "__main__":
    sys.exit(main())
