"""The engine: models computed by this project's own kernels, with equal bits on every processor.

It may import `executor.errors`, `executor.models`, numpy and the pure `protocol`, never torch or
transformers. `csrc/` is the C source, which the top level's `CMakeLists.txt` builds. Public names:
`music.MusicModel`, `pop2piano.Pop2Piano`, `pool.Pool`, `pool.Control`, `library.instruction_set`.
"""
