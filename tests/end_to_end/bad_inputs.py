"""Everything that a user may get wrong, each once: the cases of test_bad_input.py and of docs/bad-input.md."""

from __future__ import annotations

import bad_scans
import bad_sets
import bad_training
import bad_weights
from bad_world import Case

CASES: list[Case] = [*bad_training.LINES, *bad_scans.CASES, *bad_weights.CASES, *bad_training.PREPARE, *bad_training.TRAIN, *bad_sets.CASES]
