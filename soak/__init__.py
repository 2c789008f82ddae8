"""The harness of scripts/soak: servers, writers, faults, and an exact comparison of both sides."""
