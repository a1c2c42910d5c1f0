"""Kernels of the build talk to this machine alone, and are not to warn of that in each page."""

c = get_config()  # noqa: F821
c.IPKernelApp.log_level = 40
