"""What all tests share."""

from __future__ import annotations

import os

from hypothesis import settings

# Several test runs may share two cores: an example that is slow is not wrong. CI draws the same examples each time.
settings.register_profile("atlas", deadline=None, derandomize=bool(os.environ.get("CI")), print_blob=True)
settings.load_profile("atlas")

# A developer's own settings must not reach the servers and clients under test.
for name in [name for name in os.environ if name.startswith("ATLAS_") and not name.startswith("ATLAS_TEST_")]:
    del os.environ[name]
