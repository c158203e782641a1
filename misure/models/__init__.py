"""Networks, what adapts them to be explained, and their weights."""
