"""Path templates: the expressions that they become, and what is wrong with others."""

from __future__ import annotations

import re

import pytest

from sidecar.config.uri_template import template_expression


@pytest.mark.parametrize(
    ("template", "path", "fits"),
    [
        ("/users/*", "/users/7", True),
        ("/users/*", "/users/", False),
        ("/users/*", "/users/7/cart", False),
        ("/users/**", "/users/", True),
        ("/users/**", "/users/7/cart", True),
        ("/users/{id}/cart", "/users/7/cart", True),
        ("/{kind=files/*}/end", "/files/a/end", True),
        ("/a.b", "/axb", False),
        ("/*", "/a%2Fb", True),
        ("/*", "/a*b", True),
        ("/*", "/a|b", False),
    ],
)
def test_templates(template: str, path: str, fits: bool) -> None:
    expression, complaint = template_expression(template)
    assert complaint == ""
    assert bool(re.fullmatch(expression, path)) is fits


@pytest.mark.parametrize("template", ["", "users", "/a*", "/{", "/{a}/{a}", "/**/*", "/**/**", "/{1a}", "/a b", "/***"])
def test_templates_that_are_refused(template: str) -> None:
    assert template_expression(template)[1]
