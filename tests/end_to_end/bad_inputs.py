"""Everything that a user may get wrong, each once: the cases of test_bad_input.py and of docs/bad-input.md."""

from __future__ import annotations

import bad_scans
import bad_training
from bad_world import Case

CASES: list[Case] = [*bad_training.LINES, *bad_scans.CASES, *(case for case in bad_training.CASES if case not in bad_training.LINES)]
