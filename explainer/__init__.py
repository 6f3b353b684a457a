"""Learned visual explanations of classifiers."""
