"""`python -m understudy`, which `torchrun -m understudy` starts too."""

import sys

from understudy.cli import main

if __name__ == "__main__":
    sys.exit(main())
