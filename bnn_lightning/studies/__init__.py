"""``bnn study``: runs a grid or a search of settings, and reports the results in one reproducible table."""

import lazy_loader

# ``bnn --help`` looks into this package, and is not to wait for Optuna.
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"command": ["study"]})
