"""What operators work with, on Prefect's own server, work pools and workers: services of one machine, deployments.

It stands above the content flows, which it deploys and runs, and below the commands, which people type.
"""
