"""Stand-ins: drawn scenes and a CT phantom, in the official formats on disk."""
