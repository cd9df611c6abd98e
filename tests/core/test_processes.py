from __future__ import annotations

import pytest

from poise.core.misuse import Misuse
from poise.core.processes import process_state
from tests.launching import finished, launched


def test_processes_wait_for_one_another_for_longer_than_an_evaluation_takes(tmp_path):
    told = finished(launched(2, [], tmp_path, "tests.core.waiting"))
    assert float(told.split()[-1]) > 7 * 24 * 3600


@pytest.mark.parametrize("device", ["toaster", "cuda:99"])
def test_a_device_that_does_not_work_is_named_in_a_line(device, monkeypatch):
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", device)
    with pytest.raises(
        Misuse, match=f"ACCELERATE_TORCH_DEVICE={device} names a device that does not work here: ."
    ) as found:
        process_state()
    assert "\n" not in str(found.value)
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", "cpu")
    assert process_state().device.type
