//! Where messages begin and end.

use http::HeaderMap;
use tonic::Status;

use crate::grpc::metadata;

/// Finds messages in a body: each has a byte for its compression, four for its length, and so many.
#[derive(Debug)]
pub(super) struct Messages {
    largest: Option<Largest>,
    /// How many bytes of the prefix were read; all of them while a message is being read.
    read: u8,
    /// How much of the message is to come, as far as the prefix was read.
    left: usize,
}

/// The largest message, in bytes, and the setting that says so.
#[derive(Clone, Copy, Debug)]
pub(in crate::grpc) struct Largest(pub(in crate::grpc) usize, pub(in crate::grpc) &'static str);

const PREFIX_BYTES: u8 = 5;

impl Messages {
    /// Looks at a body with `headers`; what is not gRPC's has no messages that can be too large.
    pub(super) fn of(headers: &HeaderMap, largest: Option<Largest>) -> Self {
        Self {
            largest: largest.filter(|_| metadata::is_framed(headers)),
            read: 0,
            left: 0,
        }
    }

    /// Returns how many messages end within `bytes`.
    ///
    /// # Errors
    ///
    /// When one begins that is too large.
    pub(super) fn count(&mut self, mut bytes: &[u8]) -> Result<u64, Status> {
        let mut ended = 0;
        while let Some((first, rest)) = bytes.split_first() {
            if self.read < PREFIX_BYTES {
                self.read += 1;
                // The first byte, of the compression, is shifted out.
                self.left = (self.left << 8 | usize::from(*first)) & 0xffff_ffff;
                bytes = rest;
                if let Some(Largest(most, setting)) = self.largest
                    && self.read == PREFIX_BYTES
                    && self.left > most
                {
                    let left = self.left;
                    let why = format!("a message of {left} bytes; `{setting}` allows {most} bytes");
                    return Err(Status::out_of_range(why));
                }
            } else {
                let length = self.left.min(bytes.len());
                self.left -= length;
                (_, bytes) = bytes.split_at(length);
            }
            if self.read == PREFIX_BYTES && self.left == 0 {
                ended += 1;
                self.read = 0;
            }
        }
        Ok(ended)
    }
}

#[cfg(test)]
mod tests {
    use http::header::{CONTENT_TYPE, HeaderValue};

    use super::*;

    fn messages(largest: usize) -> Messages {
        let kind = HeaderValue::from_static("application/grpc+proto");
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, kind)]);
        Messages::of(&headers, Some(Largest(largest, "a.size")))
    }

    #[test]
    fn messages_are_found_however_they_are_cut() {
        // Three bytes, none, one.
        let body = [
            0, 0, 0, 0, 3, b'a', b'b', b'c', 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, b'd',
        ];
        for size in 1..=body.len() {
            let mut messages = messages(3);

            let parts = body.chunks(size).map(|part| messages.count(part).unwrap());
            let ended: u64 = parts.sum();

            assert_eq!(ended, 3, "in parts of {size}");
        }
    }

    #[test]
    fn message_that_is_cut_short_does_not_count() {
        let mut messages = messages(2);

        assert_eq!(messages.count(&[0, 0, 0, 0, 2, b'a']).unwrap(), 0);
    }

    #[test]
    fn message_above_the_largest_is_refused_before_it_came() {
        let mut messages = messages(3);

        assert_eq!(messages.count(&[0, 0, 0, 0]).unwrap(), 0);
        let refused = messages.count(&[4]).unwrap_err();

        assert_eq!(
            refused.message(),
            "a message of 4 bytes; `a.size` allows 3 bytes"
        );
    }
}
