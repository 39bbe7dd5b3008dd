"""`python -m pbeauty`."""

import sys

from pbeauty.cli import main

sys.exit(main())
