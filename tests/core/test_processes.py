from __future__ import annotations

from tests.launching import finished, launched


def test_processes_wait_for_one_another_for_longer_than_an_evaluation_takes(tmp_path):
    told = finished(launched(2, [], tmp_path, "tests.core.waiting"))
    assert float(told.split()[-1]) > 7 * 24 * 3600
