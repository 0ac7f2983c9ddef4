//! Profile expressions, such as `prod & !eu`, as the values of `spring.config.activate.on-profile`.

use crate::diagnostic::Code;

/// A condition on the active profiles.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Expression {
    /// The profile of this name is active.
    Name(String),
    /// It does not hold.
    Not(Box<Self>),
    /// All of two or more where it is `true`, else any of them.
    Several(bool, Vec<Self>),
}

/// Why an expression is refused: the code of the finding, and what goes on from the value.
pub type Refused = (Code, &'static str);

const MIXED: Refused = (
    Code::Cs0306,
    "mixes `&` and `|`; put one of the two in parentheses",
);
const MISSING: Refused = (Code::Cs0306, "lacks a profile's name");
// Spring reads these, each in another way than they look.
const UNCLOSED: Refused = (Code::Cs0112, "has a parenthesis without the other");
const TWO: Refused = (
    Code::Cs0112,
    "has two parts without `&` or `|` between them",
);
const TWICE: Refused = (Code::Cs0112, "has `!` twice, which Spring Boot misreads");
const LONG: Refused = (
    Code::Cs0306,
    "is longer than 1 KiB or nested more than 32 deep",
);
const MOST_BYTES: usize = 1024;
const MOST_DEPTH: usize = 32;

impl Expression {
    /// Reads `text`.
    ///
    /// # Errors
    ///
    /// When it has another form than Spring's manual gives.
    pub fn parse(text: &str) -> Result<Self, Refused> {
        if text.len() > MOST_BYTES {
            return Err(LONG);
        }
        let mut tokens = Tokens(text);
        let whole = any(&mut tokens, 0)?;
        match tokens.next() {
            None => Ok(whole),
            Some(")") => Err(UNCLOSED),
            Some(_) => Err(TWO),
        }
    }

    /// Returns `true` if it holds where `is_active` says which profiles are active.
    pub fn matches(&self, is_active: &dyn Fn(&str) -> bool) -> bool {
        match self {
            Self::Name(name) => is_active(name),
            Self::Not(inner) => !inner.matches(is_active),
            Self::Several(true, parts) => parts.iter().all(|part| part.matches(is_active)),
            Self::Several(false, parts) => parts.iter().any(|part| part.matches(is_active)),
        }
    }

    /// Returns `true` if the profile `name` is part of it.
    pub fn names(&self, name: &str) -> bool {
        match self {
            Self::Name(other) => other == name,
            Self::Not(inner) => inner.names(name),
            Self::Several(_, parts) => parts.iter().any(|part| part.names(name)),
        }
    }
}

/// What is left of a text, cut at its operators and parentheses.
struct Tokens<'a>(&'a str);

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let rest = self.0.trim_start();
        let first = rest.chars().next()?;
        let length = if is_mark(first) {
            first.len_utf8()
        } else {
            rest.find(is_mark).unwrap_or(rest.len())
        };
        let (token, after) = rest.split_at_checked(length)?;
        self.0 = after;
        Some(token.trim_end())
    }
}

impl Tokens<'_> {
    fn takes(&mut self, mark: char) -> bool {
        let rest = self.0.trim_start().strip_prefix(mark);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }
}

fn is_mark(character: char) -> bool {
    matches!(character, '(' | ')' | '&' | '|' | '!')
}

/// Reads parts with one operator between them.
fn any(tokens: &mut Tokens<'_>, depth: usize) -> Result<Expression, Refused> {
    let mut parts = vec![part(tokens, depth)?];
    let is_and = tokens.takes('&');
    if !is_and && !tokens.takes('|') {
        return parts.pop().ok_or(MISSING);
    }
    let (operator, other) = if is_and { ('&', '|') } else { ('|', '&') };
    loop {
        parts.push(part(tokens, depth)?);
        if tokens.takes(other) {
            return Err(MIXED);
        }
        if !tokens.takes(operator) {
            break;
        }
    }
    Ok(Expression::Several(is_and, parts))
}

fn part(tokens: &mut Tokens<'_>, depth: usize) -> Result<Expression, Refused> {
    let below = depth.saturating_add(1);
    if below > MOST_DEPTH {
        return Err(LONG);
    }
    match tokens.next() {
        Some("(") => {
            let inner = any(tokens, below)?;
            match tokens.next() {
                Some(")") => Ok(inner),
                Some(_) => Err(TWO),
                None => Err(UNCLOSED),
            }
        }
        Some("!") if tokens.takes('!') => Err(TWICE),
        Some("!") => Ok(Expression::Not(Box::new(part(tokens, below)?))),
        Some(")" | "&" | "|") | None => Err(MISSING),
        Some(name) => Ok(Expression::Name(name.to_owned())),
    }
}
