"""Whatever is damaged, mi_jax answers with a sentence, at once, and nothing is imported or lost."""

import pytest
from fuzzing import Result, fuzz


def _check(result: Result, at_least: int) -> None:
    assert sum(result.kinds.values()) >= at_least, result.kinds
    assert not result.failures, "\n\n".join(
        f"case {failure.case}: {failure.command}\n{failure.wrong}" for failure in result.failures
    )


@pytest.mark.long
def test_a_minute_of_random_damage() -> None:
    _check(fuzz(range(300), range(10**6, 10**6 + 3), seconds=60), at_least=20)


@pytest.mark.long
def test_ten_thousand_cases_of_random_damage() -> None:
    result = fuzz(range(9_000), range(10**6, 10**6 + 1_000), watch=print)
    print(f"{result.seconds:.0f} s, {dict(result.kinds)}, statuses {dict(result.statuses)}")
    _check(result, at_least=10_000)
