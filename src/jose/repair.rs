//! A JWK as text: what people's editors did to it, and how to undo it.

use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::error::{JwkError, JwkProblem, KeyError};
use super::json;

/// Puts back the quotes that are missing around member names; `None` if none is missing.
pub(super) fn with_quotes(json: &str) -> Option<Zeroizing<String>> {
    let quotes = missing_quotes(json);
    if quotes.is_empty() {
        return None;
    }
    let mut repaired = Zeroizing::new(String::with_capacity(json.len() + quotes.len()));
    let mut next = quotes.iter().peekable();
    for (at, c) in json.char_indices() {
        if next.next_if(|quote| **quote == at).is_some() {
            repaired.push('"');
        }
        repaired.push(c);
    }
    Some(repaired)
}

/// Finds the byte offsets before which a quote of a member name is missing.
pub fn missing_quotes(json: &str) -> Vec<usize> {
    let mut missing = Vec::new();
    let mut tokens = Tokens::new(json);
    let mut name_expected = false;
    while let Some((at, token)) = tokens.next() {
        let is_name = std::mem::take(&mut name_expected);
        match token {
            Token::Mark('{' | ',') => name_expected = true,
            Token::Word(word) if is_name => {
                let end = at + word.len();
                missing.push(at);
                if json.get(end..).is_some_and(|rest| rest.starts_with('"')) {
                    tokens.at = end + 1;
                } else {
                    missing.push(end);
                }
            }
            Token::Mark(_) | Token::Word(_) | Token::Text => {}
        }
    }
    missing
}

/// Takes off backslashes that an escaping left before quotes and punctuation.
///
/// `None` when the text does not begin like an object whose first quote is escaped.
pub(super) fn unescape(json: &str) -> Option<Zeroizing<String>> {
    let inside = json.trim_start().strip_prefix('{')?.trim_start();
    if !inside.starts_with("\\\"") {
        return None;
    }
    let mut text = Zeroizing::new(String::with_capacity(json.len()));
    text.extend(kept(json).map(|(_, c)| c));
    Some(text)
}

/// Finds the original position of a byte of [`unescape`]'s result.
pub(super) fn original_offset(original: &str, offset: usize) -> usize {
    let mut length = 0;
    for (at, c) in kept(original) {
        if length >= offset {
            return at;
        }
        length += c.len_utf8();
    }
    original.len()
}

fn kept(json: &str) -> impl Iterator<Item = (usize, char)> + '_ {
    json.char_indices().filter(|(at, c)| {
        let next = json.get(at + 1..).and_then(|rest| rest.chars().next());
        *c != '\\' || !next.is_some_and(|next| "\"{}:=,".contains(next))
    })
}

/// Finds the offset of a top-level member's value in a valid JSON object, or of the object's
/// opening brace when the member is not there.
pub(super) fn value_offset(json: &str, member: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut opening = None;
    let mut tokens = Tokens::new(json);
    while let Some((at, token)) = tokens.next() {
        match token {
            Token::Mark('{' | '[') => {
                opening = opening.or(Some(at));
                depth += 1;
            }
            Token::Mark('}' | ']') => depth = depth.saturating_sub(1),
            Token::Text if depth == 1 => {
                let name = json.get(at + 1..tokens.at.saturating_sub(1));
                if name == Some(member) && matches!(tokens.next(), Some((_, Token::Mark(':')))) {
                    return tokens.next().map(|(value, _)| value);
                }
            }
            Token::Mark(_) | Token::Word(_) | Token::Text => {}
        }
    }
    opening
}

/// A piece of almost-JSON.
enum Token<'a> {
    /// A quoted text.
    Text,
    /// Letters, digits, dots, dashes.
    Word(&'a str),
    /// Any other character.
    Mark(char),
}

/// Cuts almost-JSON into pieces with their offsets.
struct Tokens<'a> {
    json: &'a str,
    at: usize,
}

impl<'a> Tokens<'a> {
    fn new(json: &'a str) -> Self {
        Self { json, at: 0 }
    }

    fn next(&mut self) -> Option<(usize, Token<'a>)> {
        let rest = self.json.get(self.at..)?.trim_start();
        let start = self.json.len() - rest.len();
        let first = rest.chars().next()?;
        let token = if first == '"' {
            self.at = start + quoted_length(rest);
            Token::Text
        } else {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !"_.-+".contains(c));
            match rest.get(..end.unwrap_or(rest.len())) {
                Some(word) if !word.is_empty() => {
                    self.at = start + word.len();
                    Token::Word(word)
                }
                _ => {
                    self.at = start + first.len_utf8();
                    Token::Mark(first)
                }
            }
        };
        Some((start, token))
    }
}

/// Returns the length of the quoted text that `rest` starts with, both quotes included.
fn quoted_length(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Returns the JWK in `set`, a key set that was read before.
///
/// # Errors
///
/// When it holds no key, or more than one: their count.
pub(super) fn only_key(set: &str) -> Result<Zeroizing<String>, KeyError> {
    let text = Text::new(set);
    let mut members = json::object(text.as_str().as_bytes()).unwrap_or_default();
    let only = match members
        .get("keys")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
    {
        Some([key]) => {
            // Longer than the key needs, so that no part of it is left behind as it grows.
            let mut json = Zeroizing::new(Vec::with_capacity(set.len() * 2));
            // Writing to a vector cannot fail.
            let _ = serde_json::to_writer(&mut *json, key);
            let text = String::from_utf8(std::mem::take(&mut *json));
            Ok(Zeroizing::new(text.unwrap_or_default()))
        }
        keys => Err(KeyError::KeySet(keys.map_or(0, <[_]>::len))),
    };
    members.values_mut().for_each(json::wipe);
    only
}

/// Longest JWK that is looked at, in bytes.
const MAX_BYTES: usize = 16 * 1024;

/// The text of a JWK, without backslashes that survived an escaping, and the way back to offsets.
pub(super) struct Text<'a> {
    original: &'a str,
    stripped: Option<Zeroizing<String>>,
}

impl<'a> Text<'a> {
    pub(super) fn new(original: &'a str) -> Self {
        let stripped = (original.len() <= MAX_BYTES)
            .then(|| unescape(original))
            .flatten();
        Self { original, stripped }
    }

    pub(super) fn unescaped(&self) -> bool {
        self.stripped.is_some()
    }

    fn as_str(&self) -> &str {
        match &self.stripped {
            Some(text) => text,
            None => self.original,
        }
    }

    pub(super) fn members(&self) -> Result<Map<String, Value>, JwkProblem> {
        let text = self.as_str();
        if text.trim().is_empty() {
            return Err(JwkProblem::of(None, "it is empty"));
        }
        if text.len() > MAX_BYTES {
            let bytes = text.len();
            let text = format!("it has {bytes} bytes, at most {MAX_BYTES} are allowed");
            return Err(JwkProblem::of(None, text));
        }
        if text.trim_start().starts_with("-----BEGIN") {
            return Err(JwkProblem::Pem);
        }
        let mut members = json::object(text.as_bytes()).map_err(JwkProblem::Json)?;
        if members.contains_key("keys") && !members.contains_key("kty") {
            members.values_mut().for_each(json::wipe);
            return Err(JwkProblem::KeySet);
        }
        Ok(members)
    }

    /// Says where in the original text the problem is.
    pub(super) fn locate<T>(&self, result: Result<T, JwkProblem>) -> Result<T, JwkError> {
        result.map_err(|problem| {
            let offset = match &problem {
                JwkProblem::Json(error) => Some(error.offset()),
                other => other
                    .member()
                    .and_then(|member| value_offset(self.as_str(), member)),
            };
            let place = offset.map(|offset| match &self.stripped {
                Some(_) => original_offset(self.original, offset),
                None => offset,
            });
            JwkError::new(problem, place)
        })
    }
}
