"""`make fuzz`: hostile bytes for every decoder; see docs/fuzzing.md."""

import sys
from pathlib import Path

# How the tests of the wire make pictures and mangle messages is of use here, too.
sys.path.append(str(Path(__file__).parents[1] / "wire"))
