"""How often the collector of reference cycles looks at what a service keeps.

It stops everything for about a microsecond an object. Most of what goes away needs none of it: reference counts do.
"""

import gc

YOUNG = 5_000
"""So many objects more than there were, and the youngest are looked at."""
YOUNG_PASSES = 10
MIDDLE_PASSES = 40
"""After that many looks at the younger ones all objects are looked at: once in two million more than there were."""


def settle() -> None:
    """For the end of a service's start: what is loaded now stays, and is never looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, YOUNG_PASSES, MIDDLE_PASSES)
