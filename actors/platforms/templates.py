"""Template messages: words that WhatsApp approved beforehand, named and filled in.

Such a message travels as a message of the kind ``template`` whose body is a JSON object:
``{"name": "order_update", "language": "en_US", "components": […]}`` for platforms that speak Meta's form, or
``{"name": "HX…", "variables": {"1": "Ann"}}`` for those that keep templates under an id of their own.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

_NAME = re.compile(r"[A-Za-z0-9_]{1,512}")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(_[A-Za-z]{2,4})?")
_KEYS = frozenset({"name", "language", "components", "variables"})


class TemplateInvalid(ValueError):
    """A text is not the JSON of a template; the message says what is wrong."""


@dataclass(frozen=True)
class Template:
    """A template and what fills it in."""

    name: str
    language: str = "en_US"
    components: list[dict[str, Any]] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)


def template_of(body: str) -> Template:
    """Return the template that a message's body describes.

    Raises:
        TemplateInvalid: it describes none.
    """
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        raise TemplateInvalid("it is not JSON") from None
    if not isinstance(given, dict) or set(given) - _KEYS:
        raise TemplateInvalid(f"it is an object with {', '.join(sorted(_KEYS))}")
    name, language = given.get("name"), given.get("language", "en_US")
    components, variables = given.get("components", []), given.get("variables", {})
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise TemplateInvalid("its name is letters, digits and underscores")
    if not isinstance(language, str) or not _LANGUAGE.fullmatch(language):
        raise TemplateInvalid("its language is a code such as en_US")
    if not isinstance(components, list) or not all(isinstance(each, dict) for each in components):
        raise TemplateInvalid("its components are a list of objects")
    if not isinstance(variables, dict) or not all(isinstance(each, str) for each in variables.values()):
        raise TemplateInvalid("its variables are texts by name")
    return Template(name, language, components, variables)
