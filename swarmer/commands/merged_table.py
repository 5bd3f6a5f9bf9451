"""Tables that docker printed, one for each node, as one table with a NODE column."""

import re
from collections.abc import Mapping


def merge(tables: Mapping[str, str]) -> list[list[str]]:
    """The header and the rows of all tables, each row with the name of its node in front.

    Args:
        tables: name of the node to what docker printed: a header, and rows aligned with it.
    """
    merged: list[list[str]] = []
    for node, table in tables.items():
        lines = table.splitlines()
        if not lines:
            continue
        header, *rows = [_cells(line, _starts(lines[0])) for line in lines]
        if not merged:
            merged.append(["NODE", *header])
        merged += [[node, *row] for row in rows]
    return merged


def _starts(header: str) -> list[int]:
    """Where each column begins: after three spaces or more, as docker sets its columns apart."""
    return [0, *(found.end() for found in re.finditer(r" {2,}", header.rstrip()))]


def _cells(line: str, starts: list[int]) -> list[str]:
    ends = [*starts[1:], len(line)]
    return [line[start:end].strip() for start, end in zip(starts, ends, strict=True)]
