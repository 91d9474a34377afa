"""Why a member was outvoted: it compares outcomes, traces and waveforms level by level.

It may import `node.sync` and below. It does no IO: `helium explain` fetches what is compared.
Public names: `findings.compare` and its values, `verdict.reason`,
`waveform_diff.compare_waveforms`; `trace` parses what a trace states.
"""
