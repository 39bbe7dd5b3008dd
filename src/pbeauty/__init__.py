"""pbeauty: the p-beauty contest ("guess p times the average") with up to millions of LLM participants, over MPI."""

import time

STARTED = time.monotonic()
"""When this process began to load the package, on the monotonic clock."""

__version__ = "0.1.0"
