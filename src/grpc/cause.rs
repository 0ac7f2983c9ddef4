//! An error's text.

use std::error::Error;
use std::iter::successors;

/// Writes an error with all its causes: tonic's own text is only "transport error".
pub fn cause(error: &dyn Error) -> String {
    let mut text = error.to_string();
    for source in successors(error.source(), |&error| error.source()) {
        let next = source.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn causes_stand_in_one_line() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read `a`")]
        struct Outer(#[source] io::Error);

        let error = Outer(io::Error::other("disk on fire"));

        assert_eq!(cause(&error), "cannot read `a`: disk on fire");
    }
}
