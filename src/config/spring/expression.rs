//! Profile expressions, such as `prod & !eu`, as the values of `spring.config.activate.on-profile`.

use crate::diagnostic::Code;

/// A condition on the active profiles: a text that was read once.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Expression(String);

/// Why an expression is refused: the code of the finding, and what goes on from the value.
pub type Refused = (Code, &'static str);

const MIXED: Refused = (
    Code::Cs0306,
    "mixes `&` and `|`; put one of the two in parentheses",
);
const MISSING: Refused = (Code::Cs0306, "lacks a profile's name");
// Spring reads these, each in another way than they look.
const MISREAD: Refused = (
    Code::Cs0112,
    "has an open parenthesis, two parts without an operator, or `!` twice, which Spring Boot misreads",
);
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
        holds(text, &|_| false)?;
        Ok(Self(text.to_owned()))
    }

    /// Returns `true` if it holds where `is_active` says which profiles are active.
    pub fn matches(&self, is_active: &dyn Fn(&str) -> bool) -> bool {
        holds(&self.0, is_active) == Ok(true)
    }

    /// Returns `true` if it names the profile `name`.
    pub fn names(&self, name: &str) -> bool {
        self.0.split(is_mark).any(|part| part.trim() == name)
    }
}

fn is_mark(character: char) -> bool {
    matches!(character, '(' | ')' | '&' | '|' | '!')
}

fn holds(text: &str, is_active: &dyn Fn(&str) -> bool) -> Result<bool, Refused> {
    let mut reader = Reader {
        rest: text,
        is_active,
    };
    let whole = reader.any(0)?;
    if reader.rest.trim_start().is_empty() {
        Ok(whole)
    } else {
        Err(MISREAD)
    }
}

/// Reads a text from its start.
struct Reader<'a> {
    rest: &'a str,
    is_active: &'a dyn Fn(&str) -> bool,
}

impl Reader<'_> {
    fn takes(&mut self, mark: char) -> bool {
        let rest = self.rest.trim_start().strip_prefix(mark);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Reads parts with one operator between them.
    fn any(&mut self, depth: usize) -> Result<bool, Refused> {
        let mut whole = self.part(depth)?;
        let mut before = None;
        loop {
            let operator = ['&', '|'].into_iter().find(|mark| self.takes(*mark));
            let Some(operator) = operator else {
                return Ok(whole);
            };
            if *before.get_or_insert(operator) != operator {
                return Err(MIXED);
            }
            let part = self.part(depth)?;
            whole = if operator == '&' {
                whole && part
            } else {
                whole || part
            };
        }
    }

    fn part(&mut self, depth: usize) -> Result<bool, Refused> {
        let below = depth.saturating_add(1);
        if below > MOST_DEPTH {
            return Err(LONG);
        }
        if self.takes('(') {
            let inner = self.any(below)?;
            return if self.takes(')') {
                Ok(inner)
            } else {
                Err(MISREAD)
            };
        }
        if self.takes('!') {
            if self.takes('!') {
                return Err(MISREAD);
            }
            return Ok(!self.part(below)?);
        }
        let end = self.rest.find(is_mark).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at_checked(end).ok_or(MISSING)?;
        self.rest = rest;
        match name.trim() {
            "" => Err(MISSING),
            name => Ok((self.is_active)(name)),
        }
    }
}
