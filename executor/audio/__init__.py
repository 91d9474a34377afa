"""Audio as bytes: decoding of inputs, MIDI, the piano synthesiser, output files and their entries.

It may import `executor.errors` and the pure `protocol`; it never imports torch. Public names:
`decode.decode`, `decode.decode_files`, `recognize.content_name`, `midi.canonical`, `midi.encode`,
`piano_synth.render`, `song_features.extract`, `manifest`.
"""
