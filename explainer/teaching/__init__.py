"""Code that only the chapters use: pages, tables, sliders and figures."""
