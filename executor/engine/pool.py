"""What a call of the C library runs with: a pool of threads, and a way to stop it."""

import ctypes
from types import TracebackType

from executor.engine import library

MAX_THREADS = 64


class Control:
    """Stops a call from another thread, and shows how far it is."""

    def __init__(self) -> None:
        self.stop = ctypes.c_int32(0)
        self.done = ctypes.c_int64(0)


class Pool:
    """Threads for one call at a time. Use it in a `with` block."""

    def __init__(self, threads: int) -> None:
        """Start `threads` - 1 threads. Raises `ValueError` or `MemoryError`."""
        if not 1 <= threads <= MAX_THREADS:
            raise ValueError(f"threads: {threads} is not in 1 .. {MAX_THREADS}")
        self._library = library.load()
        self._library.he_pool_new.restype = ctypes.c_void_p
        address = self._library.he_pool_new(ctypes.c_int32(threads))
        if address is None:
            raise MemoryError("the engine's threads cannot be started")
        # What ctypes passes for a pool; it passes a null pointer for None.
        self._as_parameter_ = ctypes.c_void_p(address)

    def __enter__(self) -> "Pool":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the threads."""
        self._library.he_pool_free(self)
        self._as_parameter_ = ctypes.c_void_p()
