"""Bayesian deep learning by variational inference, in PyTorch and Lightning.

What is public stands in ``__init__.pyi``, and is imported when it is first asked for: plain PyTorch use loads neither
Lightning nor what draws figures and tables.
"""

import lazy_loader

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
