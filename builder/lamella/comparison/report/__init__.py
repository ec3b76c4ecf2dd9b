"""The page of a comparison: one HTML file, its charts as SVG, and the raw data."""
