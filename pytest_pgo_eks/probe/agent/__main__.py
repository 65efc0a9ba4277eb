"""Entry point of the package; the zip file has a copy of the same two lines at its top."""

import sys

from .main import main

sys.exit(main(sys.argv[1:]))
