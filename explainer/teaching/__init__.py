"""What only the chapters use: pages, tables, sliders and their figures."""
