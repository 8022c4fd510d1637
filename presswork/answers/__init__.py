"""Send a prompt's requests and judge the answers, until the prompt has an outcome."""
