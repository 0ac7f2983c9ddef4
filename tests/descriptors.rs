#![cfg(test)]
//! The committed descriptor sets, compared with the `.proto` files that they come from.

use std::path::Path;
use std::{env, fs};

use prost::Message as _;

const UPDATE: &str = "UPDATE_DESCRIPTORS";

#[test]
fn descriptors_of_the_package_match_its_protos() {
    assert_current(
        "proto",
        &[
            "countersign/engine/v1/engine.proto",
            "countersign/identity/v1/identity.proto",
            "countersign/registry/v1/registry.proto",
        ],
    );
}

#[test]
fn descriptors_of_the_examples_match_their_proto() {
    assert_current("examples/proto", &["greeter/v1/greeter.proto"]);
}

fn assert_current(folder: &str, protos: &[&str]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let path = folder.join("descriptors.bin");
    let compiled = protox::compile(protos, [&folder]).unwrap();
    let compiled = compiled.encode_to_vec();
    if env::var_os(UPDATE).is_some() {
        fs::write(&path, &compiled).unwrap();
    }
    assert!(
        fs::read(&path).unwrap() == compiled,
        "{} is out of date: run `{UPDATE}=1 cargo test --test descriptors`",
        path.display()
    );
}
