"""Fetching input files: from the GRID, over HTTP, XRootD or S3, or from local folders; verified and resumable."""

from pidml.fetch.download import fetch
from pidml.fetch.options import FetchOptions
from pidml.fetch.policy import InputsObtained, missing_allowed
from pidml.fetch.receipt import FetchReceipt

__all__ = ["FetchOptions", "FetchReceipt", "InputsObtained", "fetch", "missing_allowed"]
