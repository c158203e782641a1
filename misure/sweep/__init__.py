"""What must be computed, computing it, and keeping it."""
