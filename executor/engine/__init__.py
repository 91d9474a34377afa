"""The engine: models computed by this project's own kernels, with equal bits on every processor.

It may import `executor.errors`, `executor.models`, `executor.audio`, numpy and the pure `protocol`,
never torch or transformers. `csrc/` is the C source, which the top level's `CMakeLists.txt` builds.
Public names: `music.MusicModel`, `piano.PianoModel`, `matrices.kind_of`, `pool.Pool`,
`pool.Control`, `library.instruction_set`.
"""
