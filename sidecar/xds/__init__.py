"""Configuration from management servers: subscriptions, and what applies the resources that come."""
