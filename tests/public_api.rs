#![cfg(test)]
//! The public API: a snapshot, its size, and the crates that its signatures name.
//!
//! The test reads rustdoc's JSON, whose format changes with the compiler, so `cargo test` leaves
//! it out and `.ci/run` runs it. After a change on purpose:
//!
//! ```sh
//! INSTA_UPDATE=always cargo test --test public_api -- --ignored
//! ```

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use regex::Regex;

/// Most public items outside of [`PAIR`]: modules, types, traits, functions, constants, re-exports.
const MAX_ITEMS: usize = 200;

/// Most public items of all modules.
const MAX_ALL_ITEMS: usize = 283;

/// The modules of the registry, its engines and their wire.
const PAIR: [&str; 4] = ["proto", "dpm", "dpe", "registry"];

/// Crates whose types a signature may name: beside the standard library those of the layers, and
/// crates with a stable version. `i32` is no crate: generated code converts to it. That code also
/// names `futures_core`, for a method that answers with a stream.
const CRATES: [&str; 19] = [
    "alloc",
    "arc_swap",
    "bytes",
    "core",
    "countersign",
    "futures_core",
    "http",
    "http_body",
    "i32",
    "prost",
    "prost_types",
    "rustls_pki_types",
    "serde_core",
    "serde_json",
    "std",
    "tokio",
    "tonic",
    "tower_layer",
    "tower_service",
];

#[test]
#[ignore = "reads rustdoc's JSON, see the top of this file"]
fn public_api_is_small_and_changes_on_purpose() {
    let api = public_api();
    let items = items(&api);
    let outside = items.iter().filter(|path| !is_of_the_pair(path)).count();
    let foreign = foreign_crates(&api);

    insta::assert_snapshot!(api);
    assert!(foreign.is_empty(), "signatures name {foreign:?}");
    assert!(outside <= MAX_ITEMS, "{outside} items outside of {PAIR:?}");
    assert!(items.len() <= MAX_ALL_ITEMS, "{} items", items.len());
}

/// Lists the public API, one item a line.
fn public_api() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let status = Command::new(env!("CARGO"))
        .args([
            "rustdoc",
            "--lib",
            "--locked",
            "--quiet",
            "--all-features",
            "--",
        ])
        .args(["-Zunstable-options", "--output-format", "json"])
        .args(["--document-hidden-items", "--cap-lints", "allow"])
        .env("RUSTDOC", root.join("tests/public_api/rustdoc.sh"))
        .current_dir(root)
        .status();
    assert!(status.unwrap().success(), "rustdoc failed");
    let target = std::env::var_os("CARGO_TARGET_DIR");
    let target = target.map_or_else(|| root.join("target"), Into::into);
    public_api::Builder::from_rustdoc_json(target.join("doc/countersign.json"))
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()
        .unwrap()
        .to_string()
}

/// Returns the paths of the items that stand in a module, so neither methods nor fields.
fn items(api: &str) -> BTreeSet<&str> {
    let item =
        Regex::new(r"^(?:#\[.*\] )?pub (?:const |unsafe |async |safe )*(\w+) ([\w:]+)").unwrap();
    let found: Vec<_> = api
        .lines()
        .filter_map(|line| item.captures(line))
        .map(|parts| parts.extract::<2>().1)
        .collect();
    let is_module = |path: &str| {
        found
            .iter()
            .any(|[kind, module]| *kind == "mod" && *module == path)
    };
    found
        .iter()
        .map(|[_, path]| *path)
        .filter(|path| {
            path.rsplit_once("::")
                .is_some_and(|(parent, _)| is_module(parent))
        })
        .collect()
}

fn is_of_the_pair(path: &str) -> bool {
    let module = path.split("::").nth(1);
    module.is_some_and(|module| PAIR.contains(&module))
}

/// Returns the crates that signatures name and [`CRATES`] does not.
fn foreign_crates(api: &str) -> BTreeSet<&str> {
    let first_segment = Regex::new(r"(?:^|[^\w:])([a-z_]\w*)::").unwrap();
    api.lines()
        .filter(|line| !line.contains("countersign::internals::"))
        .flat_map(|line| first_segment.captures_iter(line))
        .map(|found| found.extract::<1>().1[0])
        .filter(|name| !CRATES.contains(name))
        .collect()
}
