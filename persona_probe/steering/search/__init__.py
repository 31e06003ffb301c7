"""Which intervention does it: settings tried on development questions, the best reported on others, beside nulls."""
