"""Parts of bench/run: clusters, the sides that are compared, the measurements and the table."""
