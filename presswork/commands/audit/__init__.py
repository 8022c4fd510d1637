"""`presswork audit` and what answers an auditor: the server, the index of words, bundles, costs and exports."""
