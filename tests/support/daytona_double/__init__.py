from tests.support.daytona_double.double import DaytonaDouble

__all__ = ["DaytonaDouble"]
