"""Options of the text oracle tests: --slow for the full counts, --driver for a given text_oracle."""

import pytest

import oracle


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the full number of cases")
    parser.addoption("--driver", help="path of text_oracle; default: the newest in build/")


@pytest.fixture(scope="session")
def slow(request):
    return request.config.getoption("--slow")


@pytest.fixture(scope="session")
def driver(request):
    return oracle.Driver(request.config.getoption("--driver") or oracle.find_driver())
