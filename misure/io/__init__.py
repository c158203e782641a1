"""Files: written whole or not at all, downloaded by hash, and images of every kind as tensors."""
