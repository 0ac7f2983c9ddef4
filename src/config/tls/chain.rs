//! Where a TLS property may stand: the specific setting first, then what it falls back to.

use super::super::schema;

/// A property where it is set.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// The name with `<c>`, as the table of settings has it.
    pub(super) pattern: String,
    pub(super) keys: [String; 1],
    /// The name in full.
    pub(super) setting: String,
}

/// Where the properties of one end of a connection may stand.
pub(super) struct Chain {
    pub(super) prefixes: &'static [&'static str],
    pub(super) connection: String,
}

impl Chain {
    pub(super) fn places<'c>(&'c self, property: &'c str) -> impl Iterator<Item = Found> + 'c {
        self.prefixes.iter().map(move |prefix| {
            let pattern = format!("{prefix}.{property}");
            let keys = [self.connection.clone()];
            let setting = schema::path(&pattern, &keys).join(".");
            Found {
                pattern,
                keys,
                setting,
            }
        })
    }

    /// Returns the common start of the most specific settings.
    pub(super) fn start(&self) -> String {
        let first = self.prefixes.first().copied().unwrap_or_default();
        first.replace("<c>", &self.connection)
    }
}
