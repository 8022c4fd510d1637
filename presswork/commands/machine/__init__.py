"""`presswork up`, `down`, `status`, `deploy` and `sandbox`: the services of one machine."""
