"""The judge: every count and every ideal time once more, in exact integers and fractions, from the papers' formulas.

Nothing here imports roofsim or NumPy, and nothing is fast. Where a closed form exists the judge counts one by one.
"""
