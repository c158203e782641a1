"""A progress bar for each stage of an explanation, with the time that is left."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from misure.progress import Progress


class ProgressBar:
    """Call it as a watcher; bars show on a terminal only.

    Args:
        title: What is explained.
        shown: Whether to draw; None means where stderr is a terminal.
    """

    def __init__(self, title: str, *, shown: bool | None = None) -> None:
        self.title = title
        self.shown = shown
        self.stage = ""
        self.bar: tqdm[Any] | None = None

    def __call__(self, progress: Progress) -> None:
        """Draw a step; a new stage, or one that begins anew, gets a bar of its own."""
        if self.bar is None or progress.stage != self.stage or progress.done < self.bar.n:
            self.close()
            self.stage = progress.stage
            self.bar = tqdm(
                total=progress.total,
                desc=f"{self.title}: {progress.stage}",
                disable=None if self.shown is None else not self.shown,
                dynamic_ncols=True,
                leave=False,
            )
        self.bar.n = progress.done
        self.bar.update(0)

    def close(self) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()
