"""Estimates of what a task costs."""

import pytest

from node.execution.cost import LATEST_WEIGHT, CostEstimates
from protocol.wire.messages import Task
from tests.support import fixtures

NET = fixtures.network()  # attempts of 120 s; at most 1,503 tokens and 4 sequences


def task(tokens: int, sequences: int = 1) -> Task:
    config = {"max_new_tokens": tokens, "num_return_sequences": sequences}
    return fixtures.task(NET, generation_config=config)


def test_the_longest_task_of_a_new_model_takes_a_fifth_of_its_attempt() -> None:
    costs = CostEstimates(NET)
    attempt = NET.parameters.attempt_seconds
    assert costs.seconds(task(1503, 4)) == pytest.approx(attempt / 5)
    assert not costs.is_measured(task(1503, 4))


def test_seconds_are_proportional_to_tokens_and_sequences() -> None:
    costs = CostEstimates(NET)
    assert costs.seconds(task(100, 3)) == pytest.approx(3 * costs.seconds(task(100)))
    assert costs.seconds(task(300)) == pytest.approx(3 * costs.seconds(task(100)))


def test_a_task_without_a_length_costs_the_longest_one() -> None:
    costs = CostEstimates(NET)
    silent = fixtures.task(NET, generation_config=None)
    assert costs.seconds(silent) == pytest.approx(costs.seconds(task(1503)))


def test_finished_jobs_teach_the_speed_of_their_model() -> None:
    costs = CostEstimates(NET)
    costs.observe(task(100), 50.0)
    assert costs.is_measured(task(7))
    assert costs.seconds(task(200)) == pytest.approx(100.0)
    costs.observe(task(100), 100.0)
    assert costs.seconds(task(100)) == pytest.approx(50 + LATEST_WEIGHT * 50)


def test_a_job_beside_others_only_bounds_the_estimate_of_one_alone() -> None:
    costs = CostEstimates(NET)
    costs.observe(task(100), 50.0)
    costs.observe(task(100), 400.0, together=4)  # the others' time, or its own
    assert costs.seconds(task(100)) == pytest.approx(50.0)
    costs.observe(task(100), 40.0, together=4)  # at most 40
    assert costs.seconds(task(100)) == pytest.approx(50 - LATEST_WEIGHT * 10)


def test_a_new_model_is_measured_by_a_job_beside_others() -> None:
    costs = CostEstimates(NET)
    costs.observe(task(100), 0.2, together=2)  # the document says more
    assert costs.is_measured(task(100))
    assert costs.seconds(task(100)) == pytest.approx(0.2)
