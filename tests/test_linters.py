"""The habits of this repository, as tests: each linter is clean."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent


@pytest.mark.parametrize("linter", ["ruff check", "ruff format --check", "mypy", "pyright"])
def test_a_linter_is_clean(linter: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *linter.split()], cwd=REPOSITORY, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
