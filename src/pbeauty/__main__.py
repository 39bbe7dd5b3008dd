"""`python -m pbeauty`."""

import sys

from pbeauty.cli.main import main

sys.exit(main())
