"""The load balancing policies: each compiles a cluster's hosts, as they are now, into one function that picks."""
