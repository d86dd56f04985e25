"""Coverage-guided fuzzing of what reads images; ``make fuzz``, and README.md in this folder."""
