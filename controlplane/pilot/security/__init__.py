"""Who may call what: filters that stand before all others where a workload, or a gateway, is entered."""
