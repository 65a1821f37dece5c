"""Many runs, or many architectures, beside one another: ablations, comparisons, correlations."""
