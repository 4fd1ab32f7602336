"""``python -m qscore_fast.cli``."""

import sys

from qscore_fast.cli.main import main

sys.exit(main())
