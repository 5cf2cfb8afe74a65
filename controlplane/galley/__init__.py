"""Resources: where they come from, whether they are right, where they are kept."""
