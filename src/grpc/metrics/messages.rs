//! Where messages begin and end.

/// Finds messages in a body: each has a byte for its compression, four for its length, and so many.
#[derive(Debug, Default)]
pub(super) struct Messages {
    /// How many bytes of the prefix were read; all of them while a message is being read.
    read: u8,
    /// How much of the message is to come, as far as the prefix was read.
    left: usize,
}

const PREFIX_BYTES: u8 = 5;

impl Messages {
    /// Returns how many messages end within `bytes`.
    pub(super) fn count(&mut self, mut bytes: &[u8]) -> u64 {
        let mut ended = 0;
        while let Some((first, rest)) = bytes.split_first() {
            if self.read < PREFIX_BYTES {
                self.read += 1;
                // The first byte, of the compression, is shifted out.
                self.left = (self.left << 8 | usize::from(*first)) & 0xffff_ffff;
                bytes = rest;
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
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_however_they_are_cut() {
        // Three bytes, none, one.
        let body = [
            0, 0, 0, 0, 3, b'a', b'b', b'c', 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, b'd',
        ];
        for size in 1..=body.len() {
            let mut messages = Messages::default();

            let ended: u64 = body.chunks(size).map(|part| messages.count(part)).sum();

            assert_eq!(ended, 3, "in parts of {size}");
        }
    }

    #[test]
    fn message_that_is_cut_short_does_not_count() {
        let mut messages = Messages::default();

        assert_eq!(messages.count(&[0, 0, 0, 0, 2, b'a']), 0);
    }
}
