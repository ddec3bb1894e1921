"""The conditions database (CCDB): validity of runs, and publication of networks with a validity interval."""

from pidml.ccdb.access import Access
from pidml.ccdb.client import CcdbClient, Validity, run_validity, upload
from pidml.ccdb.objects import Publishable, objects_of_bundle, run_of

__all__ = [
    "Access",
    "CcdbClient",
    "Publishable",
    "Validity",
    "objects_of_bundle",
    "run_of",
    "run_validity",
    "upload",
]
