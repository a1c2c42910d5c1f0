"""The tests, in the rooms of the package: ``tests/core`` holds those of ``bnn_lightning/core``, and so on."""
