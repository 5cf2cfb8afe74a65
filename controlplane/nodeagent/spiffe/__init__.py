"""Messages of the SPIFFE Workload API, generated from workload.proto."""
