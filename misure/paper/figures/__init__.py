"""The paper's figures, from records and saved maps alone."""
