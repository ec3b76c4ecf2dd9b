"""The node's agent: one store, each environment mounted once, given to many pods over a Unix socket."""
