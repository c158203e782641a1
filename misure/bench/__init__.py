"""Speed: each explainer against the version one would write first."""
