"""Simulations of the tests of `alens locate` and `alens compare` where no head differs, and where one does."""
