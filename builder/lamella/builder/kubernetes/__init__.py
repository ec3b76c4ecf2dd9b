"""An environment in Kubernetes YAML: what `inject` adds to pods' templates, by edits of the text alone."""
