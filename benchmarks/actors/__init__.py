"""Who is measured: one file a peer, each started as a process of its own and told what to do line by line (`stage`)."""
