"""The operator's command, `mizzen`."""
