"""The soak test (soak.py), short and long. SEACLIFF_SOAK_SECONDS: another length of the short one."""

import os

import pytest
import soak

from conftest import BINARY, MODEL


@pytest.mark.timeout(600)
def test_soak():
    seconds = float(os.environ.get("SEACLIFF_SOAK_SECONDS", "30"))
    assert soak.soak(BINARY, MODEL, seconds, clients=20) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_long_soak():
    assert soak.soak(BINARY, MODEL, 600, clients=200) == []
