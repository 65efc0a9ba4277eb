"""Tests of the controllers of the stand-in."""
