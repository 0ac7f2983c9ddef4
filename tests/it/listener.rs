//! The listener under peers that waste its connections and time.

#[path = "listener/admission.rs"]
mod admission;
#[path = "listener/descriptors.rs"]
mod descriptors;
#[path = "listener/floods.rs"]
mod floods;
#[path = "listener/half_open.rs"]
mod half_open;
#[path = "listener/limits.rs"]
mod limits;
#[path = "listener/panics.rs"]
mod panics;
#[path = "listener/process.rs"]
mod process;
#[path = "listener/served.rs"]
mod served;
#[path = "listener/stop.rs"]
mod stop;
#[path = "listener/strangers.rs"]
mod strangers;
#[path = "listener/tls.rs"]
mod tls;
#[path = "listener/wire.rs"]
mod wire;
