"""The policies that come with the package, and the schema by which editors complete them."""
