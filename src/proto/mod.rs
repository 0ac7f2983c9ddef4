//! The generated messages and services of `proto/`.

pub(crate) mod convert;

/// The compiled `proto/` files, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("../../proto/descriptors.bin");

macro_rules! generated {
    ($(#[$doc:meta])* $module:ident, $package:literal) => {
        $(#[$doc])*
        #[expect(
            clippy::pedantic,
            clippy::allow_attributes,
            clippy::allow_attributes_without_reason,
            clippy::clone_on_ref_ptr,
            unused_qualifications,
            reason = "generated code"
        )]
        pub mod $module {
            tonic::include_proto!($package);
        }
    };
}

generated! {
    /// `countersign.engine.v1`: what a registry asks of an engine.
    engine, "countersign.engine.v1"
}
generated! {
    /// `countersign.identity.v1`: how a module sees its caller.
    identity, "countersign.identity.v1"
}
generated! {
    /// `countersign.registry.v1`: where engines announce themselves.
    registry, "countersign.registry.v1"
}
