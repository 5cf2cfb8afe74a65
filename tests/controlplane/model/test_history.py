from __future__ import annotations

from typing import Any

from controlplane.model.history import differences


def change(action: str, revision: int, weight: int, **more: object) -> dict[str, Any]:
    metadata = {"name": "reviews", "resourceVersion": str(revision), "generation": revision}
    document = {
        "kind": "VirtualService",
        "metadata": metadata,
        "spec": {"hosts": ["reviews"], "weight": weight},
        **more,
    }
    who = "ann" if revision < 9 else ""
    return {"type": action, "who": who, "when": f"t{revision}", "resourceVersion": str(revision), "object": document}


def test_a_history_reads_as_who_when_and_what() -> None:
    history = [
        change("ADDED", 3, 90),
        change("MODIFIED", 5, 50),
        change("MODIFIED", 6, 50, status={"said": "so"}),
        change("DELETED", 9, 50),
    ]
    assert "\n".join(differences(history)) == (
        "9  DELETED  t9  unknown\n"
        "  @@ -1,7 +0,0 @@\n  -kind: VirtualService\n  -metadata:\n  -  name: reviews\n"
        "  -spec:\n  -  hosts:\n  -  - reviews\n  -  weight: 50\n\n"
        "5  MODIFIED  t5  ann\n"
        "  @@ -4,4 +4,4 @@\n   spec:\n     hosts:\n     - reviews\n  -  weight: 90\n  +  weight: 50\n\n"
        "3  ADDED  t3  ann\n"
        "  @@ -0,0 +1,7 @@\n  +kind: VirtualService\n  +metadata:\n  +  name: reviews\n"
        "  +spec:\n  +  hosts:\n  +  - reviews\n  +  weight: 90\n"
    )
