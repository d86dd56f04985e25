"""The benchmarks are `bench`, beside the package, where a bare `pytest` does not look."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))
