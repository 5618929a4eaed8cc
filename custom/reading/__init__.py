"""From files to arrays: scans, volumes and images."""
