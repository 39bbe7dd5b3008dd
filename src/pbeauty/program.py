"""The program: its version, and when this process began to load it."""

import time

STARTED = time.monotonic()
"""On the monotonic clock."""
__version__ = "0.1.0"
