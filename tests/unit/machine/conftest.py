"""The test machine's code is `tests.machine`, which a bare `pytest` does not find."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))
