"""Checkpoints: what a stage has come to, kept so that a kill costs little of it.

    jobs/JOB/checkpoints/000007/        the newest; any files that the stage likes
    jobs/JOB/checkpoints/000007/record.json     whose they are: the fingerprint's digest

A checkpoint exists whole or not at all, and the one before goes only once it does. Checkpoints are
the runner's to give and to take away: a stage that asks for them (`ResumableStage`) is handed
those of its own fingerprint, and they are removed when its result is committed.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fc7.engine.errors import StoreError
from fc7.engine.store.atomic import new_folder, read_json, write_json

FOLDER = "checkpoints"
_RECORD = "record.json"


class Checkpoints:
    """The checkpoints of one stage.

    Args:
        folder: where they are, or will be; it need not exist.
        digest: of the stage's fingerprint. Checkpoints of another are not its own.
    """

    def __init__(self, folder: Path, digest: str) -> None:
        self._folder, self._digest = folder, digest

    def latest(self) -> Path | None:
        """Return the folder of the newest checkpoint, or None where there is none."""
        for folder in reversed(self._numbered()):
            try:
                if read_json(folder / _RECORD).get("fingerprint") == self._digest:
                    return folder
            except StoreError:
                continue
        return None

    @contextmanager
    def write(self) -> Iterator[Path]:
        """Yield an empty folder that is the newest checkpoint once the block succeeds."""
        self._folder.mkdir(exist_ok=True)
        before = self._numbered()
        number = int(before[-1].name) + 1 if before else 1
        with new_folder(self._folder / f"{number:06d}") as folder:
            yield folder
            write_json(folder / _RECORD, {"fingerprint": self._digest})
        for older in before:
            shutil.rmtree(older)

    def clear(self) -> None:
        """Remove all of them, whosever they are."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _numbered(self) -> list[Path]:
        """Return the folders of whole checkpoints, the oldest first."""
        found = (path for path in self._folder.glob("*") if path.name.isdecimal())
        return sorted(found, key=lambda path: int(path.name))
