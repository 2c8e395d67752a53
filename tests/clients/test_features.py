"""Every client shows each feature that it declares, and no other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from clients.build import clients
from tests.support.debian import TIMEOUT

from .features import FEATURES

if TYPE_CHECKING:
    from clients.build import Client

    from .conftest import Runs

BUILD = 1200
"""Seconds; the first build of a client may compile all that it needs."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(TIMEOUT + BUILD)]


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("client", clients(), ids=lambda client: client.name)
def test_feature(client: Client, feature: str, runs: Runs) -> None:
    run = runs.of(client, trouble=FEATURES[feature].trouble)
    if feature in client.features:
        FEATURES[feature].check(run)
    else:
        with pytest.raises(AssertionError):
            FEATURES[feature].check(run)
