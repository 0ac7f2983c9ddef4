//! Compiles `proto/` with protox: no `protoc` is needed to build countersign.

use std::path::PathBuf;
use std::{env, fs};

use prost::Message as _;

const FILES: &[&str] = &[
    "countersign/engine/v1/engine.proto",
    "countersign/identity/v1/identity.proto",
    "countersign/registry/v1/registry.proto",
];

/// The service of `examples/`: what a user's own service would be.
const EXAMPLE: &str = "greeter/v1/greeter.proto";

#[expect(
    clippy::disallowed_methods,
    reason = "cargo tells a build script where to write"
)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=examples/proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    tonic_prost_build::configure().compile_fds(protox::compile([EXAMPLE], ["examples/proto"])?)?;
    Ok(())
}
