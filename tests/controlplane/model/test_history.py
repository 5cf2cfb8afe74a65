from __future__ import annotations

import orjson

from controlplane.model.history import differences, told
from controlplane.model.resource import ResourceKey
from controlplane.model.store import Action, Event, Stored

KEY = ResourceKey("VirtualService", "shop", "reviews")


def event(action: Action, revision: int, weight: int, **more: object) -> Event:
    metadata = {"name": "reviews", "resourceVersion": str(revision), "generation": revision}
    document = {
        "kind": "VirtualService",
        "metadata": metadata,
        "spec": {"hosts": ["reviews"], "weight": weight},
        **more,
    }
    return Event(
        action, Stored(KEY, orjson.dumps(document), revision), "ann" if revision < 9 else "", 1_700_000_000 + revision
    )


def test_a_history_reads_as_who_when_and_what() -> None:
    history = told(
        [
            event(Action.ADDED, 3, 90),
            event(Action.MODIFIED, 5, 50),
            event(Action.MODIFIED, 6, 50, status={"said": "so"}),
            event(Action.DELETED, 9, 50),
        ]
    )
    assert [(each["revision"], each["action"], each["who"], each["time"]) for each in history] == [
        (3, "ADDED", "ann", "2023-11-14T22:13:23.000+00:00"), (5, "MODIFIED", "ann", "2023-11-14T22:13:25.000+00:00"),
        (6, "MODIFIED", "ann", "2023-11-14T22:13:26.000+00:00"), (9, "DELETED", "", "2023-11-14T22:13:29.000+00:00"),
    ]  # fmt: skip
    assert history[1]["document"]["spec"] == {"hosts": ["reviews"], "weight": 50}
    orjson.dumps(history)
    lines = "\n".join(differences(history))
    assert lines == (
        "revision 9  DELETED  2023-11-14T22:13:29.000+00:00  unknown\n"
        "  @@ -1,7 +0,0 @@\n  -kind: VirtualService\n  -metadata:\n  -  name: reviews\n"
        "  -spec:\n  -  hosts:\n  -  - reviews\n  -  weight: 50\n\n"
        "revision 6  MODIFIED  2023-11-14T22:13:26.000+00:00  ann\n  (no difference but in bookkeeping or status)\n\n"
        "revision 5  MODIFIED  2023-11-14T22:13:25.000+00:00  ann\n"
        "  @@ -4,4 +4,4 @@\n   spec:\n     hosts:\n     - reviews\n  -  weight: 90\n  +  weight: 50\n\n"
        "revision 3  ADDED  2023-11-14T22:13:23.000+00:00  ann\n"
        "  @@ -0,0 +1,7 @@\n  +kind: VirtualService\n  +metadata:\n  +  name: reviews\n"
        "  +spec:\n  +  hosts:\n  +  - reviews\n  +  weight: 90\n"
    )


def test_what_was_put_there_by_hand_is_shown_as_it_is() -> None:
    history = told([Event(Action.ADDED, Stored(KEY, b"no JSON", 1))])
    assert history[0]["document"] == "no JSON" and "no JSON" in "\n".join(differences(history))
