"""Registers the command line options and the fixtures; nothing else."""

pytest_plugins = (
    "fixtures.options",
    "fixtures.signals",
    "fixtures.cluster",
    "fixtures.nodes",
    "fixtures.faults",
    "fixtures.report",
)
