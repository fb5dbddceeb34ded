"""What stands behind a Service's address?

Guide sections 2.2 and 5.1.
"""
