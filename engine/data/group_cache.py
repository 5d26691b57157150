"""The last few row groups read, shared by the threads that read rows in order."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future

import pyarrow as pa

_KEPT_BYTES = 256 << 20
# Rows read ahead reach over the end of a group into the next.
_KEPT_GROUPS = 2


class GroupCache:
    """Loads row groups, each once however many threads ask for it, and keeps the latest.

    What is kept is at most 256 MiB, or two groups where two are more than that.

    Args:
        load: number of a group -> its column of images. Runs in the thread that asked first.
    """

    def __init__(self, load: Callable[[int], pa.ChunkedArray]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._groups: OrderedDict[int, Future[pa.ChunkedArray]] = OrderedDict()

    def get(self, group: int) -> pa.ChunkedArray:
        """Return a group's column; whatever `load` raised, if it did."""
        with self._lock:
            found = self._groups.get(group)
            ours = found is None
            if found is None:
                found = self._groups[group] = Future()
            self._groups.move_to_end(group)
        if ours:
            try:
                found.set_result(self._load(group))
            except BaseException as error:
                # Not remembered: a file server that failed once may answer the next time.
                with self._lock:
                    del self._groups[group]
                found.set_exception(error)
                raise
            self._evict()
        return found.result()

    def _evict(self) -> None:
        with self._lock:
            sizes = {
                number: future.result().nbytes
                for number, future in self._groups.items()
                if future.done()
            }
            total = sum(sizes.values())
            for number in list(sizes)[:-_KEPT_GROUPS]:
                if total <= _KEPT_BYTES:
                    break
                total -= sizes[number]
                del self._groups[number]
