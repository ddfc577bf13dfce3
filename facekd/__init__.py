"""facekd: distil large face-recognition models into small ones that ship."""

__version__ = "0.1.0"
