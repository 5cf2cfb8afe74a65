"""HTTP filters: those that Envoy's configuration names, and what users need to write their own.

    from sidecar.filters import PAUSE, FilterStream, HttpFilter

See ``docs/user-filters.md``.
"""

from sidecar.core.head import Field, RequestHead, ResponseHead
from sidecar.core.http_filter import PAUSE, FilterStream, HttpFilter

__all__ = ["PAUSE", "Field", "FilterStream", "HttpFilter", "RequestHead", "ResponseHead"]
