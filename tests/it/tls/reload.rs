//! Files that change under a running server.
