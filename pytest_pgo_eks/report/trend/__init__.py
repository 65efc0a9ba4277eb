"""Many runs: how figures went over time, since when they are otherwise, and who flickers."""
