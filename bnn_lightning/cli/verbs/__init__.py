"""The verbs of ``bnn``, one file each: ``fit.py`` has the class ``Fit``, and is found by its name."""
