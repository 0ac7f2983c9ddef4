//! Where messages begin and end.

/// Finds messages in a body: each has a byte for its compression, four for its length, and so many.
#[derive(Debug, Default)]
pub(super) struct Messages {
    prefix: [u8; 5],
    /// How much of the prefix is there; all of it while a message is being read.
    read: usize,
    /// How much of the message is to come.
    left: usize,
}

impl Messages {
    /// Returns how many messages end within `bytes`.
    pub(super) fn count(&mut self, mut bytes: &[u8]) -> u64 {
        let mut ended = 0;
        while !bytes.is_empty() {
            if let Some(missing) = self.prefix.get_mut(self.read..).filter(|m| !m.is_empty()) {
                let length = missing.len().min(bytes.len());
                let (head, rest) = bytes.split_at(length);
                for (to, from) in missing.iter_mut().zip(head) {
                    *to = *from;
                }
                self.read += length;
                bytes = rest;
                if self.read < self.prefix.len() {
                    break;
                }
                let [_, a, b, c, d] = self.prefix;
                self.left = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
            }
            let length = self.left.min(bytes.len());
            let (_, rest) = bytes.split_at(length);
            self.left -= length;
            bytes = rest;
            if self.left == 0 {
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
