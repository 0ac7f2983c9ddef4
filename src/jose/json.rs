//! Strict JSON: one object, every member once, and an error that says where.

use std::fmt;

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::{Map, Number, Value};
use zeroize::Zeroize as _;

/// Why a text is no strict JSON object, and at which byte.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{problem}")]
pub struct JsonError {
    problem: JsonProblem,
    offset: usize,
}

impl JsonError {
    /// Returns what is wrong.
    pub fn problem(&self) -> &JsonProblem {
        &self.problem
    }

    /// Returns the byte offset at which a person would point; at most the length of the text.
    pub fn offset(&self) -> usize {
        self.offset
    }
}

/// What is wrong with a JSON text.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonProblem {
    /// A member name that occurs twice in one object.
    #[error("the member {0} occurs twice")]
    Duplicate(String),
    /// Something after the object.
    #[error("there is more text after the object")]
    Trailing,
    /// Any other fault; the text is ours or the parser's, and quotes at most a short name of the
    /// input.
    #[error("{0}")]
    Other(String),
}

/// Parses one JSON object.
///
/// Refused: bytes that are not UTF-8, a byte order mark, a member that occurs twice in any object
/// at any depth, anything after the object, nesting deeper than 128. Space around it is allowed.
///
/// # Errors
///
/// When `text` is anything else; the error says where.
pub fn object(text: &[u8]) -> Result<Map<String, Value>, JsonError> {
    let text = std::str::from_utf8(text).map_err(|error| JsonError {
        problem: JsonProblem::Other("it is not UTF-8".to_owned()),
        offset: error.valid_up_to(),
    })?;
    let mut parser = serde_json::Deserializer::from_str(text);
    let mut value = Strict
        .deserialize(&mut parser)
        .map_err(|error| explain(text, &error))?;
    let (problem, offset) = match (parser.end(), &mut value) {
        (Ok(()), Value::Object(members)) => return Ok(std::mem::take(members)),
        (Ok(()), other) => {
            let start = text.len() - text.trim_start().len();
            let what = format!("it is {}, not an object", kind(other));
            (JsonProblem::Other(what), start)
        }
        (Err(error), _) => (JsonProblem::Trailing, offset(text, &error)),
    };
    wipe(&mut value);
    Err(JsonError { problem, offset })
}

/// The members of an object that is still being read: wiped if the rest cannot be, as they may be
/// those of a private key.
struct Unfinished(Map<String, Value>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.0.values_mut().for_each(wipe);
    }
}

pub(super) fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Object(members) => members.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Names the JSON type of `value`.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Finds the first character that a word processor puts in place of a quote or a blank, and says
/// which it is.
pub(super) fn typeset(text: &str) -> Option<(usize, String)> {
    text.char_indices().find_map(|(at, c)| {
        let (what, instead) = match c {
            '\u{2018}'..='\u{201f}' | '\u{ab}' | '\u{bb}' => ("curly quote", "a straight quote"),
            '\u{a0}' | '\u{2007}' | '\u{202f}' => ("no-break blank", "an ordinary blank or none"),
            '\u{200b}'..='\u{200d}' | '\u{2060}' => ("blank without width", "nothing"),
            _ => return None,
        };
        let code = u32::from(c);
        Some((
            at,
            format!("it holds a {what}, U+{code:04X}, where {instead} belongs"),
        ))
    })
}

fn explain(text: &str, error: &serde_json::Error) -> JsonError {
    let at = offset(text, error);
    // What a quote of another kind does shows only after it.
    if let Some((offset, what)) = typeset(text).filter(|(offset, _)| *offset <= at)
        && error.classify() != Category::Data
    {
        let problem = JsonProblem::Other(what);
        return JsonError { problem, offset };
    }
    let words = error.to_string();
    let message = words.rsplit_once(" at line ").map_or("", |(what, _)| what);
    let (problem, offset) = match error.classify() {
        Category::Eof => (
            JsonProblem::Other("the text ends too early".into()),
            text.len(),
        ),
        Category::Data => {
            let before = text.get(..at).unwrap_or(text);
            let name = before.strip_suffix('"').unwrap_or(before);
            let offset = name.rfind('"').unwrap_or(at);
            (JsonProblem::Duplicate(shown(message)), offset)
        }
        Category::Syntax | Category::Io => match unquoted(text.get(at..).unwrap_or_default()) {
            Some(word) if message == "key must be a string" => {
                let what = format!("expected `\"` before {}", shown(word));
                (JsonProblem::Other(what), at)
            }
            _ => (JsonProblem::Other(message.to_owned()), at),
        },
    };
    JsonError { problem, offset }
}

/// Returns the short word that `rest` starts with, if it can be a member name.
fn unquoted(rest: &str) -> Option<&str> {
    const LONGEST: usize = 12;
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
    let (word, after) = rest.split_at_checked(end)?;
    let is_name = (1..=LONGEST).contains(&end) && after.starts_with(['"', ':']);
    is_name.then_some(word)
}

/// Turns the parser's line and column into a byte offset.
fn offset(text: &str, error: &serde_json::Error) -> usize {
    let line_start = text
        .split_inclusive('\n')
        .take(error.line().saturating_sub(1))
        .map(str::len)
        .sum::<usize>();
    let back = usize::from(error.classify() != Category::Data);
    (line_start + error.column())
        .saturating_sub(back)
        .min(text.len())
}

/// Builds a [`Value`] and refuses a member that comes twice.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(Self)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Unfinished(Map::new());
        while let Some(name) = members.next_key::<String>()? {
            if object.0.contains_key(&name) {
                return Err(de::Error::custom(name));
            }
            let value = members.next_value_seed(Self)?;
            object.0.insert(name, value);
        }
        Ok(Value::Object(std::mem::take(&mut object.0)))
    }
}

/// Longest foreign text that a message repeats; a P-256 private part has 43 characters.
const MAX_SHOWN: usize = 32;

/// Quotes and escapes a foreign text for a message, or says only its length if it could be a key.
pub(super) fn shown(text: &str) -> String {
    let characters = text.chars().count();
    if characters > MAX_SHOWN {
        return format!("a text of {characters} characters");
    }
    let mut shown = String::from("`");
    for c in text.chars() {
        if c.is_ascii_graphic() || c == ' ' || c.is_alphanumeric() {
            shown.push(c);
        } else {
            shown.extend(c.escape_unicode());
        }
    }
    shown.push('`');
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &[u8]) -> (String, usize) {
        let error = object(text).unwrap_err();
        (error.to_string(), error.offset())
    }

    #[test]
    fn an_object_parses_with_space_unicode_and_nesting() {
        let parsed =
            object(" {\"a\" : [1, 1.5, -2, null, {\"b\":\"\u{e9}\"}]}\n".as_bytes()).unwrap();

        assert_eq!(
            serde_json::to_string(&parsed).unwrap(),
            "{\"a\":[1,1.5,-2,null,{\"b\":\"\u{e9}\"}]}"
        );
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn what_is_not_strict_is_refused_where_a_person_would_point() {
        let deep = format!("{{\"a\":{}", "[".repeat(2000));
        let rows: &[(&[u8], &str, usize)] = &[
            (b"", "the text ends too early", 0),
            (b"{", "the text ends too early", 1),
            (b"{\"a\":1", "the text ends too early", 6),
            (b"{kty\":\"EC\"}", "expected `\"` before `kty`", 1),
            (
                b"{\"kty\":\"EC\",crv\":1}",
                "expected `\"` before `crv`",
                12,
            ),
            (b"{\n  crv\":1}", "expected `\"` before `crv`", 4),
            (b"{'a':1}", "key must be a string", 1),
            (b"{\"a\":1,}", "trailing comma", 7),
            (b"{\"a\":1}x", "there is more text after the object", 7),
            (b"{\"a\":1}{}", "there is more text after the object", 7),
            (b"{\"a\":1}\0", "there is more text after the object", 7),
            (b"{\"a\":1,\"a\":2}", "the member `a` occurs twice", 7),
            (
                b"{\"b\":{\"a\":1,\n\"\\u0061\":2}}",
                "the member `a` occurs twice",
                13,
            ),
            (b" [1]", "it is an array, not an object", 1),
            (b"\"a\"", "it is text, not an object", 0),
            (b"null", "it is null, not an object", 0),
            (b"\xef\xbb\xbf{}", "expected value", 0),
            (b"{\"a\":\"\xff\"}", "it is not UTF-8", 6),
            (b"{\"a\":\"\xc0\xaf\"}", "it is not UTF-8", 6),
            (
                b"{\"a\":\"\x01\"}",
                "control character (\\u0000-\\u001F) found while parsing a string",
                6,
            ),
            (b"{\"nbf\":{,\"a\":1}}", "key must be a string", 8),
            (b"{/*c*/\"a\":1}", "key must be a string", 1),
            (b"{\"a\":1e400}", "number out of range", 9),
            (
                "{\u{201c}kty\u{201d}:1}".as_bytes(),
                "it holds a curly quote, U+201C, where a straight quote belongs",
                1,
            ),
            (
                "{\"kty\u{201d}:\"EC\"}".as_bytes(),
                "it holds a curly quote, U+201D, where a straight quote belongs",
                5,
            ),
            (
                "{\"kty\":\u{201c}EC\u{201d}}".as_bytes(),
                "it holds a curly quote, U+201C, where a straight quote belongs",
                7,
            ),
            (
                "{\"a\":\"\u{a0}\",\u{a0}\"b\":1}".as_bytes(),
                "it holds a no-break blank, U+00A0, where an ordinary blank or none belongs",
                6,
            ),
            (
                "{\"a\":1,\u{200b}\"b\":1}".as_bytes(),
                "it holds a blank without width, U+200B, where nothing belongs",
                7,
            ),
            (
                "{\"a\":\"\u{201d}\",\"a\":1}".as_bytes(),
                "the member `a` occurs twice",
                11,
            ),
        ];
        for (text, problem, at) in rows {
            let shown = String::from_utf8_lossy(text);
            assert_eq!(refusal(text), ((*problem).to_owned(), *at), "{shown}");
        }
        assert_eq!(refusal(deep.as_bytes()).0, "recursion limit exceeded");
    }

    #[test]
    fn a_long_word_is_not_repeated_in_the_message() {
        let (message, _) = refusal(b"{0ZcRAz-kQjQfLXUsJGDy54YP5dL2UO2bYuGqTXpXQu8\":1}");
        assert!(!message.contains("0ZcR"), "{message}");
    }
}
