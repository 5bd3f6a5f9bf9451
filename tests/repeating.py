"""A pytest plugin that runs each failed test once more, in the way of pytest-rerunfailures: `-p repeating`."""

from typing import Any

import pytest
from _pytest.runner import runtestprotocol


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: Any, nextitem: pytest.Item | None) -> bool:
    # Only what belongs to the test itself ends between its tries: the next one seems to be another test beside it.
    sibling = next(other for other in item.session.items if other is not item and other.parent is item.parent)
    reports = runtestprotocol(item, log=False, nextitem=sibling)
    if any(report.failed for report in reports):
        item._initrequest()
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    return True
