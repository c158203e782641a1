"""A session of the app without a browser."""

from __future__ import annotations

import pytest
from app_network import bright_shelf, write_image

from misure.app.session import Session


@pytest.fixture
def shelf(tmp_path):
    return bright_shelf(tmp_path)


@pytest.fixture
def opened(shelf, tmp_path):
    """A session at the tiny image with its larger block chosen."""
    session = Session()
    session.look_at(shelf.take("bright"), write_image(tmp_path / "blocks.png"))
    session.choose(48, 56)
    yield session
    session.close()
