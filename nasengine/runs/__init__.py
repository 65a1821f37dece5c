"""One run, from its spec to its result: the spec, the loop, the record on disk, the workers."""
