"""`python -m controlplane.cli` is `mizzen`."""

import sys

from controlplane.cli.main import main

sys.exit(main())
