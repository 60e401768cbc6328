"""`python -m @@name.snake@@`."""

import sys

from @@name.snake@@.cli import main

sys.exit(main())
