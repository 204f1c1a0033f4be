"""What runs now, from the files that runs and sweeps leave behind: on the terminal and as a page.

It reads files and nothing else, so that it can look at runs of other machines.
"""
