"""`presswork audit` and what answers an auditor: the audit room's server, its index of words, bundles, costs, exports."""
