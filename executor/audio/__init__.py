"""From samples or notes to bytes: input decoding, MIDI, the piano synthesiser, output manifests.

It may import `executor.errors`, `executor.job` and the pure `protocol`; it never imports torch.
Public names: `decode`, `midi`, `piano_synth`, `manifest`.
"""
