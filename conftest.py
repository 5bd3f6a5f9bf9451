"""Registers the command line options and the fixtures; nothing else."""

# A module comes before those that import from it: pytest rewrites assertions only of what it imports itself.
pytest_plugins = (
    "fixtures.disabled_plugins",
    "fixtures.marks",
    "fixtures.servers",
    "fixtures.workers",
    "fixtures.options",
    "fixtures.signals",
    "fixtures.deadlines",
    "fixtures.faults",
    "fixtures.cluster",
    "fixtures.nodes",
    "fixtures.busybox",
    "fixtures.registry",
    "fixtures.registry_s3",
    "fixtures.containers",
    "fixtures.registrator",
    "fixtures.services",
    "fixtures.commands",
    "fixtures.failure_logs",
)
