"""The rbac filter with path templates: which paths they are for, letter by letter."""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import Message, Site, bootstrap, http_filter, listener, manager, route
from tests.differential.case import Table

TEMPLATES = {
    "one": "/x/*",
    "rest": "/x/**",
    "both": "/x/*/y/**",
    "named": "/x/{user}/y/{rest=**}",
    "end": "/x/**/z",
    "plain": "/x/y.z",
}


def _rules(template: str) -> Message:
    matcher: Message = {
        "name": "uri-template",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
            "path_template": template,
        },
    }
    only: Message = {"permissions": [{"uri_template": matcher}], "principals": [{"any": True}]}
    return {"rules": {"action": "ALLOW", "policies": {"only": only}}}


def rbac_templates(site: Site) -> Message:
    settings: dict[str, Any] = {"normalize_path": True}
    return bootstrap(
        site,
        [
            listener(
                site,
                name,
                manager(site, [route("/")], filters=[http_filter("rbac", "RBAC", **_rules(template))], **settings),
            )
            for name, template in TEMPLATES.items()
        ],
    )


BOOTSTRAPS = {"rbac_templates": rbac_templates}

table = Table("rbac-templates", "rbac_templates")
CASES = table.cases
for _name in TEMPLATES:
    for _path in ("/", "/x", "/x/", "/x/a", "/x/a?b=/c", "/x/a/", "/x/a/y", "/x/a/y/", "/x/a/y/b/c", "/x/y.z", "/x/yaz", "/x/a/z",
                  "/x/z", "/x//z", "/y/x/a", "/x/a/z/"):  # fmt: skip
        table.get(f"{_name}-{_path}", _path, listener=_name)
for _code in range(0x21, 0x7F):
    if chr(_code) not in "/?#\\":
        table.get(f"letter-{_code:x}", f"/x/a{chr(_code)}b", listener="one")
        table.get(f"letter-of-the-rest-{_code:x}", f"/x/a{chr(_code)}b", listener="rest")
