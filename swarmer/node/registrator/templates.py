"""The placeholders that docker allows in the variables of a swarm service.

Docker fills them in for each task. A port of the routing mesh belongs to all tasks, so it has a value only for what is
the service's, not for `.Node` and `.Task`.

Source: "Create services using templates" in docker's reference of `service create`.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

_PLACEHOLDER: Final = re.compile(
    r"\{\{\s*(?:\.Service\.(?P<field>ID|Name)|\.Service\.Labels\.(?P<label>\w+)"
    r'|index\s+\.Service\.Labels\s+["`](?P<quoted>[^"`\\]*)["`])\s*\}\}'
)

#: What separates tags: no comma behind a backslash, or within a placeholder.
_COMMA: Final = re.compile(r"(?<!\\),(?![^{}]*\}\})")

#: The end of a condition or loop, which may enclose several tags.
_END: Final = re.compile(r"\{\{-?\s*end\b")


def filled_in(variables: Mapping[str, str], *, identity: str, name: str, labels: Mapping[str, str]) -> dict[str, str]:
    """The variables of a swarm service without placeholders; left out is what is different for each task.

    Of lists of tags, only the tags with such a placeholder are left out, unless a condition or a loop is among them.

    Args:
        identity, name, labels: of the service.
    """

    def value(found: re.Match[str]) -> str:
        if field := found["field"]:
            return identity if field == "ID" else name
        return labels.get(found["label"] or found["quoted"], "")

    def known(texts: Iterable[str]) -> list[str]:
        return [_PLACEHOLDER.sub(value, text) for text in texts if "{{" not in _PLACEHOLDER.sub("", text)]

    filled = {key: known(_COMMA.split(text) if _is_list(key, text) else [text]) for key, text in variables.items()}
    return {key: ",".join(texts) for key, texts in filled.items() if texts}


def _is_list(key: str, text: str) -> bool:
    return key.upper().endswith("_TAGS") and not _END.search(text)
