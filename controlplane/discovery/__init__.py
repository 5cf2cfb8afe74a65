"""Where services and their endpoints come from besides resources: workloads that register themselves."""
