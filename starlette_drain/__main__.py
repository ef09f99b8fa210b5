"""``python -m starlette_drain`` is the ``starlette-drain`` command."""

import sys

from starlette_drain.tools.cli import main

if __name__ == "__main__":
    sys.exit(main())
