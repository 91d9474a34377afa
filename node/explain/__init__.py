"""Why nodes disagreed about a task: it compares outcomes, traces and waveforms level by level.

It may import `node.sync`, `node.client` and below; it changes nothing.
Public names: `findings`, `verdict`, `trace`, `waveform_diff`.
"""
