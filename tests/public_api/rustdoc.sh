#!/bin/sh
# rustdoc writes JSON only with this variable; set for cargo as a whole, it would rebuild dependencies.
RUSTC_BOOTSTRAP=1 exec rustdoc "$@"
