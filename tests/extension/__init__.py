"""A package of somebody else's: one new thing of each kind, a file each, used by class path."""
