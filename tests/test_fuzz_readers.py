"""A few hundred damaged files for every reader; `benchmarks/fuzz_readers.py` makes any number of them."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import fuzz_readers


def test_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    seed = 0 if os.environ.get("CI") else random.randrange(2**32)  # as the made-up examples of hypothesis, see conftest
    found = fuzz_readers.fuzz(tmp_path, 1200, seed)
    assert {name: row for name, row in found.items() if fuzz_readers.harmful(row)} == {}
    for name, row in found.items():
        assert row["refused"], f"{name}: no damage was ever noticed"
