"""Layers turned round: the same bits as torch's own, under the profile, and nothing else turned."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from executor.determinism import profile
from executor.tasks.fast_linear import FastLinear, replace_linears

# In a process under the profile: how many products differ in a bit, and of how many.
COMPARED = """
import json, torch
from executor.determinism import profile
from executor.tasks.fast_linear import FastLinear, fits
profile.fix()
torch.manual_seed(0)
def bits(numbers):
    assert numbers.is_contiguous()
    return numbers.view(torch.int32)
found = {"turned": 0, "different": 0}
for high in (512, 516, 1024, 2048, 6144):
    for wide in (512, 513, 1024, 1536):
        plain = torch.nn.Linear(wide, high, bias=False)
        if not fits(plain):
            assert wide > high
            continue
        turned = torch.nn.Linear(wide, high, bias=False, device="meta")
        turned.weight = plain.weight
        turned.__class__ = FastLinear
        for shape in ((2, 1), (3, 1), (1, 4), (2, 2), (2,), (1, 1), (1, 5)):
            for scale in (1e-38, 1.0, 1e30):
                given = scale * torch.randn(*shape, wide)
                given[..., 0] = -0.0
                found["turned"] += 1
                made, wanted = turned(given), plain(given)
                assert made.shape == wanted.shape
                found["different"] += not torch.equal(bits(made), bits(wanted))
print(json.dumps(found))
"""


def test_the_bits_are_those_of_torchs_own_layer(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", COMPARED],
        env=profile.child_environment(tmp_path),
        capture_output=True,
        check=True,
        text=True,
    )
    assert json.loads(answer.stdout) == {"turned": 14 * 7 * 3, "different": 0}


def test_only_two_to_four_contiguous_rows_are_multiplied_the_other_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turned: list[int] = []
    multiply = torch.mm

    def mm(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        turned.append(second.shape[1])
        return multiply(first, second)

    monkeypatch.setattr(torch, "mm", mm)
    model = torch.nn.Sequential(torch.nn.Linear(512, 512, bias=False))
    replace_linears(model)
    with torch.no_grad():
        for rows in (1, 2, 3, 4, 5):
            model(torch.ones(rows, 1, 512))
        model(torch.ones(512, 2).t())
        model(torch.ones(0, 512))
    assert turned == [4, 4, 4]


def test_only_plain_layers_that_gain_are_turned() -> None:
    class Other(torch.nn.Linear):  # type: ignore[misc]
        """As bitsandbytes' are: a subclass with a forward of its own."""

    layers = {
        "gains": torch.nn.Linear(1024, 4096, bias=False),
        "narrow": torch.nn.Linear(508, 4096, bias=False),
        "wide": torch.nn.Linear(2048, 4096, bias=False),
        "flat": torch.nn.Linear(1024, 512, bias=False),
        "odd": torch.nn.Linear(1024, 4095, bias=False),
        "biased": torch.nn.Linear(1024, 4096),
        "sixteen bits": torch.nn.Linear(1024, 4096, bias=False, dtype=torch.bfloat16),
        "other": Other(1024, 4096, bias=False),
    }
    model = torch.nn.ModuleDict(layers)
    replace_linears(model)
    assert [name for name, layer in model.items() if type(layer) is FastLinear] == ["gains"]
