"""The page for people: one self-contained HTML file without scripts."""
