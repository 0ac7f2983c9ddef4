//! Placeholders: `${name}` and `${name:default}`, also nested.

use zeroize::Zeroizing;

/// Why a placeholder was not resolved.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceholderError {
    /// The name is not set, and there is no default.
    #[error("{} is not set", crate::diagnostic::quote(.0))]
    Unresolved(String),
    /// The names lead back to where they started.
    #[error("{} leads back to itself", crate::diagnostic::quote(.0))]
    Circle(String),
    /// More than 32 levels.
    #[error("placeholders are nested more than 32 deep")]
    TooDeep,
    /// More than 64 KiB, or more than 1000 placeholders.
    #[error("the value exceeds 64 KiB or 1000 placeholders")]
    TooLarge,
    /// The name holds a private key.
    #[error("{} holds a private key, which is never copied", crate::diagnostic::quote(.0))]
    PrivateKey(String),
}

/// What a name in a placeholder stands for.
#[derive(Debug)]
pub enum Looked {
    /// This text, which may hold placeholders itself.
    Text(String),
    /// A private key: not to be copied.
    Private,
}

/// Finds the value of a name; `None` if it is not set.
pub type Lookup<'a> = dyn Fn(&str) -> Option<Looked> + 'a;

/// Returns `true` if `value` has a placeholder.
pub fn has_placeholder(value: &str) -> bool {
    value
        .split_once("${")
        .is_some_and(|(_, rest)| rest.contains('}'))
}

/// Goes through the names in the placeholders of `value`, those in defaults included. A name that
/// is itself put together by placeholders is not among them.
pub fn names(value: &str) -> impl Iterator<Item = &str> {
    let starts = value.split("${").skip(1);
    starts.filter_map(|rest| rest.split([':', '}']).next())
}

/// Replaces the placeholders of `value`. A `${` without its `}` is text; there is no escape.
///
/// # Errors
///
/// When a name is not set and has no default, leads back to itself, holds a private key, or the
/// result is too deep or too large. Spring leaves an unresolved one as text; here it is refused.
pub fn resolve(value: &str, lookup: &Lookup<'_>) -> Result<Zeroizing<String>, PlaceholderError> {
    let mut resolver = Resolver {
        lookup,
        open: Vec::new(),
        left: MAX_PLACEHOLDERS,
        bytes: MAX_BYTES,
    };
    resolver.resolve(value, 0)
}

const MAX_DEPTH: usize = 32;
const MAX_PLACEHOLDERS: usize = 1000;
const MAX_BYTES: usize = 64 * 1024;

struct Resolver<'a> {
    lookup: &'a Lookup<'a>,
    open: Vec<String>,
    left: usize,
    bytes: usize,
}

impl Resolver<'_> {
    fn resolve(
        &mut self,
        value: &str,
        depth: usize,
    ) -> Result<Zeroizing<String>, PlaceholderError> {
        if depth > MAX_DEPTH {
            return Err(PlaceholderError::TooDeep);
        }
        let mut out = Zeroizing::new(String::new());
        let mut rest = value;
        while let Some((before, after)) = rest.split_once("${") {
            let Some((inner, tail)) = split_outside(after, '}') else {
                break;
            };
            self.push(&mut out, before)?;
            let replacement = self.replacement(inner, depth)?;
            self.push(&mut out, &replacement)?;
            rest = tail;
        }
        self.push(&mut out, rest)?;
        Ok(out)
    }

    fn push(&mut self, out: &mut String, text: &str) -> Result<(), PlaceholderError> {
        self.bytes = self
            .bytes
            .checked_sub(text.len())
            .ok_or(PlaceholderError::TooLarge)?;
        out.push_str(text);
        Ok(())
    }

    /// Resolves what stands between the braces.
    fn replacement(
        &mut self,
        inner: &str,
        depth: usize,
    ) -> Result<Zeroizing<String>, PlaceholderError> {
        self.left = self.left.checked_sub(1).ok_or(PlaceholderError::TooLarge)?;
        let below = depth.saturating_add(1);
        let (name, default) = match split_outside(inner, ':') {
            Some((name, default)) => (name, Some(default)),
            None => (inner, None),
        };
        let resolved = self.resolve(name, below)?;
        match ((self.lookup)(&resolved), default) {
            (Some(Looked::Private), _) => Err(PlaceholderError::PrivateKey(resolved.to_string())),
            (Some(Looked::Text(text)), _) => {
                let value = Zeroizing::new(text);
                if self.open.contains(&resolved) {
                    return Err(PlaceholderError::Circle(resolved.to_string()));
                }
                self.open.push(resolved.to_string());
                let replacement = self.resolve(&value, below);
                self.open.pop();
                replacement
            }
            (None, Some(default)) => self.resolve(default, below),
            (None, None) => Err(PlaceholderError::Unresolved(resolved.to_string())),
        }
    }
}

/// Splits `text` around the first `mark` that is not inside inner braces.
fn split_outside(text: &str, mark: char) -> Option<(&str, &str)> {
    let mut open: usize = 0;
    for (at, character) in text.char_indices() {
        match character {
            _ if open == 0 && character == mark => {
                let (before, after) = text.split_at(at);
                return Some((before, after.strip_prefix(mark)?));
            }
            '{' => open = open.saturating_add(1),
            '}' => open = open.saturating_sub(1),
            _ => {}
        }
    }
    None
}
