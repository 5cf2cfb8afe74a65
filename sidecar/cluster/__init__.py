"""Clusters: where their hosts come from, which one a request gets, and when a host or the cluster takes no more."""
