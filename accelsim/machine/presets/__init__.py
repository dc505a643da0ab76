"""The machines that come with the package, as YAML."""
