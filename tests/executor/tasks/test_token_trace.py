import hashlib
from typing import Any

import torch

from executor.tasks.generate_hooks import TokenRecorder, TokenStreamer
from executor.tasks.token_trace import TokenTrace


def digest(columns: Any) -> str:
    payload = columns.T.contiguous().to(torch.int32).numpy().astype("<i4").tobytes()
    return hashlib.sha256(b"helium/2/tokens\0" + payload).hexdigest()[:16]


def test_recorder_counts_steps_and_digests_blocks() -> None:
    steps: list[int] = []
    recorder = TokenRecorder(steps.append)
    tokens = torch.arange(4 * 66).reshape(4, 66)
    for end in range(1, 67):
        stop = recorder(tokens[:, :end], None)
        assert stop.tolist() == [False] * 4
    assert steps == list(range(1, 67))
    assert recorder.trace().digests == (digest(tokens[:, :64]), digest(tokens[:, 64:]))
    assert recorder.trace().digests == (digest(tokens[:, :64]), digest(tokens[:, 64:]))
    step_bytes = "".join(recorder.trace().steps)
    assert step_bytes == "".join(digest(tokens[:, [step]])[:2] for step in range(66))
    assert [len(block) for block in recorder.trace().steps] == [128, 4]
    assert TokenRecorder(steps.append).trace() == TokenTrace((), ())


def test_a_full_block_is_not_followed_by_an_empty_one() -> None:
    recorder = TokenRecorder(lambda _: None)
    tokens = torch.arange(128).reshape(1, 128)
    for end in range(1, 129):
        recorder(tokens[:, :end], None)
    assert recorder.trace().digests == (digest(tokens[:, :64]), digest(tokens[:, 64:]))


def test_recorder_joins_the_parts_of_a_generation() -> None:
    """Bark's and Seamless's parts: of other lengths, and of other numbers of rows."""
    steps: list[int] = []
    recorder = TokenRecorder(steps.append)
    first, second = torch.tensor([[5, 6]]), torch.tensor([[1, 2, 3], [4, 5, 6]])
    assert recorder(first, None).shape == (1,)
    assert recorder(second, None).shape == (2,)
    assert recorder(first[:, :1], None).shape == (1,)
    assert steps == [1, 2, 3]
    assert recorder.trace().digests == (digest(torch.tensor([[6, 3, 6, 5]])),)
    steps_of = [digest(torch.tensor([[6]])), digest(torch.tensor([[3, 6]]))]
    assert recorder.trace().steps[0][:4] == steps_of[0][:2] + steps_of[1][:2]


def test_stopping_answer_is_reused() -> None:
    recorder = TokenRecorder(lambda _: None)
    tokens = torch.zeros(2, 2, dtype=torch.int64)
    assert recorder(tokens, None) is recorder(tokens, None)


def test_streamer_records_all_but_the_prompt() -> None:
    steps: list[int] = []
    recorder = TokenRecorder(steps.append)
    streamer = TokenStreamer(recorder)
    tokens = torch.arange(4 * 70).reshape(4, 70)
    streamer.put(torch.tensor([[9, 9, 9]]))
    for place in range(70):
        streamer.put(tokens[None, :, place])
    streamer.end()
    assert steps == list(range(1, 71))
    assert recorder.trace().digests == (digest(tokens[:, :64]), digest(tokens[:, 64:]))
