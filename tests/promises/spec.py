"""A scenario without a cluster; run by the tests of the harness."""

from swarmer.spec import Spec


def test_that_prints_where_it_would_run(spec: Spec) -> None:
    print(f"would run on {spec.name}")
