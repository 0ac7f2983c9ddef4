//! Why a text does not describe an engine.

/// Why a text is not an engine id.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("it is not a UUID of the form 0031debd-6130-4b4a-8eaf-7a834555cf33")]
pub struct EngineIdError;

/// Why a host and port are not a valid address.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// No host name.
    #[error("the host name is empty")]
    Empty,
    /// Longer than 253 bytes.
    #[error("the host name has {0} bytes, at most 253 are allowed")]
    TooLong(usize),
    /// A character that no DNS label may hold.
    #[error("the host name holds {0:?}; DNS labels and IP addresses are allowed")]
    Character(char),
    /// A label that is empty, longer than 63, or begins or ends with a dash.
    #[error("the host name has a label that is empty, over 63 bytes, or with a dash at an end")]
    Label,
    /// A number where some resolvers would read an IP address, such as `127.1` or `0x7f000001`.
    #[error("the host name ends in a number but is not an IP address in the usual form")]
    Number,
    /// Port 0, negative, or above 65535.
    #[error("the port is {0}, 1 to 65535 are allowed")]
    Port(i64),
}

/// Why constraints are not accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConstraintsError {
    /// More than 64 KiB.
    #[error("the constraints take {0} bytes, at most 65536 are allowed")]
    TooLarge(usize),
}
