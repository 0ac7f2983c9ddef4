//! Generates the messages and services from the committed descriptor sets: building countersign
//! needs neither `protoc` nor a compiler of `.proto` files.
//!
//! After a change in `proto/` or `examples/proto/`, write the descriptor sets again, before the code
//! uses what is new:
//!
//! ```sh
//! UPDATE_DESCRIPTORS=1 cargo test --test descriptors
//! ```

use std::{env, fs};

use prost::Message as _;
use prost_types::FileDescriptorSet;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    generate("proto/descriptors.bin")?;
    // The service of `examples/`, which tests use too: both are built with the feature `testing`.
    if env::var_os("CARGO_FEATURE_TESTING").is_some() {
        generate("examples/proto/descriptors.bin")?;
    }
    Ok(())
}

fn generate(path: &str) -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed={path}");
    let descriptors = FileDescriptorSet::decode(fs::read(path)?.as_slice())?;
    // An engine takes much more than the rest of what a watch says.
    let large = ".countersign.registry.v1.WatchEnginesResponse.change.engine";
    let code = tonic_prost_build::configure().boxed(large);
    code.compile_fds(descriptors)?;
    Ok(())
}
