"""Where the project and the real exports are on this machine."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
EXPORTS = ROOT.parent / "shared" / "data"
