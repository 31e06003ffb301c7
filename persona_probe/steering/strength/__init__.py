"""How strongly: strengths that meet a budget, and what each strength does beside its nulls."""
