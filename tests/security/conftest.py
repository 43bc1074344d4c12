"""One secured Kafka for all of these tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from orderstream import broker
from tests.security.secured import Secured


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A broker that lets nobody in unasked. It has no topics and no users yet."""
    if broker._java() is None or shutil.which("mvn") is None or shutil.which("openssl") is None:
        missing = "apt-get install openjdk-17-jre-headless maven openssl"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    made = Secured(tmp_path_factory.mktemp("secured"))
    yield made
    made.kill()
