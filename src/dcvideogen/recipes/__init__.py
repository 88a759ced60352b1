"""Complete runs as YAML files, and the typed objects they are read into."""
