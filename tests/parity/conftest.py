"""The comparison's own modules lie beside the package, in tools/parity."""

import sys
from pathlib import Path

TOOLS = Path(__file__).parents[2] / "tools" / "parity"
sys.path.insert(0, str(TOOLS))
