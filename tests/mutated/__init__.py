"""Ten thousand mutated inputs for every parser of the product, and what none of them may do."""
