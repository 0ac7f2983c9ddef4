//! The server seen by OpenSSL.
