"""What numba imports to find its kept kernels: `kernels.use_compiled_only` names it."""

from typing import Any

from numba.core import caching


class KernelLocator(caching.UserProvidedCacheLocator):
    """Finds kernels in `NUMBA_CACHE_DIR`, which this process cannot write to."""

    def ensure_cache_path(self) -> None:
        """Do nothing: numba would create the folder, and test it by writing."""


def _keep_in_memory(*_: Any) -> None:
    """Take a compiled kernel as numba's cache does, and write nothing."""


caching.Cache.save_overload = _keep_in_memory  # type: ignore[method-assign]
