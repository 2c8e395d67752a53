"""`python -m atlas_grpc.cli` is `atlas`."""

from __future__ import annotations

from . import main

if __name__ == "__main__":
    main()
