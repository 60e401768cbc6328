"""A gateway of the fleet: the product's own, with failpoints around it. `python -m tests.chaos.gateway NAME`"""

import sys

from gateway.__main__ import main
from tests.chaos.hooks import Hooks

if __name__ == "__main__":
    Hooks(sys.argv.pop()).install()
    main()
