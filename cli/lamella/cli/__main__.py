"""Run `lamella` as `python -m lamella.cli`."""

from __future__ import annotations

import sys

from lamella.cli.main import main

sys.exit(main())
