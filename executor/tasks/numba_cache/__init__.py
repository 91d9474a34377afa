"""Numba's compiled kernels on disk: one process writes them, workers read them.

It may import `executor.audio`. Public names: `kernels.compile_all`, `kernels.compiled`,
`kernels.use_compiled_only`.
"""
