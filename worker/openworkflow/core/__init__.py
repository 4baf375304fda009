"""The words of the domain and their rules, pure: no event loop, no database, no environment."""
