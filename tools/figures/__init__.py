"""The figures of docs/review: a module a page, drawn by what the package computes."""
