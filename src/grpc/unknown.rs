//! A deployment that is not among the trusted ones.

/// No trusted deployment fits.
#[derive(Clone, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum UnknownDeployment {
    /// None has this name.
    #[error("no trusted deployment is called `{0}`")]
    Name(String),
    /// None has this module type.
    #[error("no trusted deployment has the module type `{0}`; pair the two modules")]
    Module(String),
    /// More than one has this module type.
    #[error(
        "deployments {names} all have the module type `{module}`; name one in `countersign.client.connection.{module}.deployment`"
    )]
    Several {
        /// The module type.
        module: String,
        /// Their names.
        names: String,
    },
}

crate::failure::debug_as_text!(UnknownDeployment);
