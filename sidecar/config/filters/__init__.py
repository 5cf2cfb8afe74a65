"""What each HTTP filter is configured with, one file for one filter."""
