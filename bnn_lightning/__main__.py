"""``python -m bnn_lightning`` is ``bnn``."""

import sys

from bnn_lightning.cli import main

sys.exit(main())
