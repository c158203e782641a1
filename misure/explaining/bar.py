"""A progress bar for each stage of an explanation, with the time that is left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from tqdm import tqdm

from misure.progress import Progress, Watch


@contextmanager
def progress_bar(title: str, *, shown: bool | None = None) -> Iterator[Watch]:
    """Draw the steps of an explanation; a new stage, or one that begins anew, gets a bar of its own.

    Args:
        title: What is explained.
        shown: Whether to draw; None means where stderr is a terminal.

    Yields:
        The watcher to pass to an explainer.
    """
    disable = None if shown is None else not shown
    with ExitStack() as bars:
        bar: tqdm[Any] | None = None
        stage = ""

        def draw(progress: Progress) -> None:
            nonlocal bar, stage
            if bar is None or progress.stage != stage or progress.done < bar.n:
                bars.close()
                stage, name = progress.stage, f"{title}: {progress.stage}"
                bar = bars.enter_context(
                    tqdm(total=progress.total, desc=name, disable=disable, dynamic_ncols=True, leave=False)
                )
            bar.update(progress.done - bar.n)

        yield draw
