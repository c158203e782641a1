"""The paper: its numbers, tables and figures, remade from records alone."""
