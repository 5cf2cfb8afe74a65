"""Path templates: `extensions.path.match.uri_template.v3.UriTemplateMatchConfig`, as regular expressions.

`*` is for one segment, `**` for any text, `{name}` for one segment, `{name=segments}` for what those say. Source: Envoy's
reference, `UriTemplateMatchConfig`.
"""

from __future__ import annotations

import re

from sidecar.config.fields import Node
from sidecar.config.matcher import PathMatcher, StringMatcher

URI_TEMPLATE = "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig"
_MOST_VARIABLES = 5
_LETTERS = r"a-zA-Z0-9\-._~%!$&'()+,;:@="
_SEGMENT = f"[{_LETTERS}*]+"
_REST = f"[{_LETTERS}*/]*"
_LITERAL = re.compile(f"[{_LETTERS}]+")
_VARIABLE = re.compile(r"\{([a-zA-Z][a-zA-Z0-9_]{0,15})(?:=([^{}]*))?\}")


def parse_uri_template(node: Node) -> PathMatcher | None:
    """The matcher of a TypedExtensionConfig with a template; None if it is refused."""
    extension = node.extension(known=(URI_TEMPLATE,))
    if extension is None:
        return None
    template: str = extension.get("path_template")
    expression, complaint = template_expression(template)
    if complaint:
        extension.refuse(f'"{template}" {complaint}', "path_template", "correct the template")
        return None
    return PathMatcher(StringMatcher("safe_regex", expression.encode()))


def template_expression(template: str) -> tuple[str, str]:
    """The regular expression for all of a path without its query, and "" or what is wrong with the template."""
    if not template.startswith("/"):
        return "", "does not begin with /"
    names = [match[1] for match in _VARIABLE.finditer(template)]
    if len(names) > _MOST_VARIABLES or len(set(names)) < len(names):
        return "", f"has a variable twice, or more than {_MOST_VARIABLES}"
    segments = _VARIABLE.sub(lambda match: match[2] or "*", template).split("/")[1:]
    found = []
    for index, segment in enumerate(segments):
        if segment == "**":
            found.append(_REST)
            if any(rest in ("*", "**") for rest in segments[index + 1 :]):
                return "", "has something to match after **, which must be the last"
        elif segment == "*":
            found.append(_SEGMENT)
        elif segment and not _LITERAL.fullmatch(segment):
            return "", f'has "{segment}", which is neither a segment of a path, nor *, nor **'
        else:
            found.append(re.escape(segment))
    return "/" + "/".join(found), ""
