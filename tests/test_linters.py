"""The habits of this repository, as tests: each linter is clean."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent


#: Where the scripts of this Python's packages are.
SCRIPTS = Path(sys.executable).parent


@pytest.mark.parametrize(
    "linter", ["ruff check", "ruff format --check", "mypy", "pyright", "lint-imports --no-cache --no-logo"]
)
def test_a_linter_is_clean(linter: str) -> None:
    command, *options = linter.split()
    done = subprocess.run([SCRIPTS / command, *options], cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
