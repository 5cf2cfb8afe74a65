"""Kubernetes' own kinds, as far as a mesh reads them.

They are written by tools that know nothing of a mesh, and carry many fields that say nothing to it. Each model lists by name
the fields that it lets pass unread; what is in neither list is refused, as everywhere.
"""
