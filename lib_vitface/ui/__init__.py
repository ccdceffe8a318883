"""Forms, tabs and plots."""
