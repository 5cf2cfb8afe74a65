"""Active health checks: a cluster's hosts are asked how they are, and those that do not answer well get no traffic."""
