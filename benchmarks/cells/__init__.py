"""The cells of the table, one module for each kind of measurement."""
