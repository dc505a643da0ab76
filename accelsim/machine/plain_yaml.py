"""YAML as arch files and recipes may hold it. The only place that reads it."""

from __future__ import annotations

import re
from typing import Any

import yaml

from accelsim.errors import AccelsimError

_MOST_CHARACTERS = 1 << 19
_DEEPEST = 20


def load_yaml(text: str, where: str) -> Any:
    """Plain YAML: no anchors, which can make a small file expand without end, no key twice, and nothing so
    deep or so long that reading it takes longer than anyone waits."""
    if len(text) > _MOST_CHARACTERS:
        raise AccelsimError(f"{where}: {len(text):,} characters, expected at most {_MOST_CHARACTERS:,}")
    try:
        depth = 0
        for event in yaml.parse(text, Loader=_Loader):
            if isinstance(event, yaml.AliasEvent):
                raise AccelsimError(f"{where}: YAML aliases are not allowed, expected plain values")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                raise AccelsimError(f"{where}: is nested more than {_DEEPEST} deep")
        return yaml.load(text, Loader=_Loader)
    except AccelsimError:
        raise
    # PyYAML lets errors of its constructors through as they are: int(''), dates that do not exist, ...
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        raise AccelsimError(f"{where}: not valid YAML: {str(error)[:200]}") from None


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is not None and key in seen:
                raise yaml.YAMLError(f"key '{key}' is given twice, line {key_node.start_mark.line + 1}")
            seen.add(key)
        return super().construct_mapping(node, deep)


# YAML 1.1 takes 1e-3 for text because it has no dot.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def shown_value(value: object) -> str:
    """At most 60 characters of what a file holds."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits
        text = "a value too long to print"
    return text if len(text) <= 60 else text[:57] + "..."
