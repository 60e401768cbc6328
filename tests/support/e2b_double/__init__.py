from tests.support.e2b_double.double import E2BDouble

__all__ = ["E2BDouble"]
