"""`python -m lamella.cli` is `lamella`."""

from __future__ import annotations

import sys

from lamella.cli.main import main

sys.exit(main())
