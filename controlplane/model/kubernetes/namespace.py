"""Namespace (v1)."""

from __future__ import annotations

from controlplane.model.kubernetes.tolerance import Tolerant


class Namespace(Tolerant):
    """A namespace's `spec`, which says nothing to a mesh: its name and labels do."""

    passed_over = frozenset(("finalizers",))
