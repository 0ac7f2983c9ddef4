//! Names: which spellings are one, and which environment variable means which.

use std::borrow::Cow;
use std::iter;

use super::look;

/// Returns the form in which spellings of one name agree: lower case, no dashes or underscores.
pub fn uniform(text: &str) -> String {
    text.chars()
        .filter(|c| !matches!(c, '-' | '_'))
        .flat_map(char::to_lowercase)
        .collect()
}

/// Returns `true` if `one` and `other` are spellings of one name.
pub fn same(one: &str, other: &str) -> bool {
    uniform(one) == uniform(other)
}

/// Returns the first of `key`, `key2`, `key3`… that is not taken.
pub fn free_key_name(is_taken: impl Fn(&str) -> bool) -> String {
    let numbered = (2_u32..).map(|number| format!("key{number}"));
    let mut names = iter::once("key".to_owned()).chain(numbered);
    names.find(|name| !is_taken(name)).unwrap_or_default()
}

/// Does what [`uniform`] does; most segments of names are in that form as written.
fn uniform_of(text: &str) -> Cow<'_, str> {
    let is_kept = |byte: u8| byte.is_ascii() && !matches!(byte, b'-' | b'_' | b'A'..=b'Z');
    if text.bytes().all(is_kept) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(uniform(text))
    }
}

/// A name as a file has it, cut at its dots and brackets.
///
/// Two names are equal where Spring Boot binds them to one: `jwt-keys`, `jwtKeys` and `JWT_KEYS`;
/// `roles[0]` and `roles.0`; `[key]` and `key`. A dot inside brackets belongs to the segment.
#[derive(Clone, Debug)]
pub struct Name<'a> {
    segments: Vec<Segment<'a>>,
}

#[derive(Clone, Debug)]
struct Segment<'a> {
    written: &'a str,
    uniform: Cow<'a, str>,
    bracketed: bool,
}

impl<'a> Segment<'a> {
    fn new(written: &'a str, bracketed: bool) -> Self {
        Self {
            written,
            uniform: uniform_of(written),
            bracketed,
        }
    }
}

impl<'a> Name<'a> {
    /// Cuts `text`. A bracket that is never closed is part of its segment, and so is everything
    /// after the 32nd.
    pub fn parse(text: &'a str) -> Self {
        const MOST: usize = 32;
        let dots = text.bytes().filter(|byte| *byte == b'.').count();
        let mut segments = Vec::with_capacity(dots.min(MOST).saturating_add(1));
        let mut rest = text;
        // No bracket after the last that closes one is closed.
        let last = text.rfind(']').unwrap_or_default();
        let mut from = 0;
        loop {
            look();
            if segments.len() == MOST {
                segments.push(Segment::new(rest, false));
                break;
            }
            let opens = rest.strip_prefix('[').filter(|_| from < last);
            let bracketed = opens.and_then(|r| r.split_once(']'));
            let (segment, after) = bracketed.unwrap_or_else(|| {
                let end = rest.char_indices().find(|(at, c)| {
                    *c == '.' || (*c == '[' && *at > 0 && from.saturating_add(*at) < last)
                });
                rest.split_at(end.map_or(rest.len(), |(at, _)| at))
            });
            segments.push(Segment::new(segment, bracketed.is_some()));
            rest = match after.strip_prefix('.') {
                Some(next) => next,
                None if after.is_empty() => break,
                None => after,
            };
            from = text.len().saturating_sub(rest.len());
        }
        Self { segments }
    }

    /// Returns the name as written, dots between the segments and no brackets.
    pub fn written(&self) -> String {
        let segments: Vec<_> = self.segments.iter().map(|s| s.written).collect();
        segments.join(".")
    }

    /// Returns the form in which spellings agree: lower case, dots between the segments.
    pub fn uniform(&self) -> String {
        let segments: Vec<_> = self.segments.iter().map(|s| s.uniform.as_ref()).collect();
        segments.join(".")
    }
}

impl PartialEq for Name<'_> {
    fn eq(&self, other: &Self) -> bool {
        let mine = self.segments.iter().map(|s| &s.uniform);
        mine.eq(other.segments.iter().map(|s| &s.uniform))
    }
}

impl Eq for Name<'_> {}

/// The shape of a setting's name, such as `deployments.<name>.module`: literal segments, and map
/// keys in angle brackets.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: &'static str,
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Literal(String),
    Key,
}

/// How a name fits a [`Pattern`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Match {
    /// The map keys, as written.
    pub keys: Vec<String>,
    /// What follows the pattern, as written, such as the index of a list element.
    pub rest: Vec<String>,
}

impl Pattern {
    /// Cuts `text` at its dots; a segment in angle brackets stands for any map key.
    pub fn new(text: &'static str) -> Self {
        let parts = text
            .split('.')
            .map(|segment| match segment.strip_prefix('<') {
                Some(_) => Part::Key,
                None => Part::Literal(uniform(segment)),
            });
        Self {
            text,
            parts: parts.collect(),
        }
    }

    /// Returns how `name` fits, with what is left of it; `None` if it does not.
    pub fn matches(&self, name: &Name<'_>) -> Option<Match> {
        let (segments, rest) = name.segments.split_at_checked(self.parts.len())?;
        let mut pairs = self.parts.iter().zip(segments);
        let fits = pairs.all(|(part, segment)| match part {
            Part::Literal(text) => *text == segment.uniform && !segment.bracketed,
            Part::Key => true,
        });
        fits.then(|| Match {
            keys: self.keys_of(name),
            rest: rest.iter().map(|it| it.written.to_owned()).collect(),
        })
    }

    /// Counts the segments that `name` has more than this; none where it has fewer.
    pub fn more_in(&self, name: &Name<'_>) -> Option<usize> {
        name.segments.len().checked_sub(self.parts.len())
    }

    /// Writes the name with `keys` in place of its map keys.
    pub fn with_keys(&self, keys: &[String]) -> String {
        let mut given = keys.iter();
        let segments = self.text.split('.').map(|segment| {
            let key = segment.strip_prefix('<').and_then(|_| given.next());
            key.map_or_else(|| segment.to_owned(), |key| bracketed(key))
        });
        segments.collect::<Vec<_>>().join(".")
    }

    /// Returns how an environment variable fits, where `known` lists the map keys that are there,
    /// given those already found. A variable never names a new map key.
    pub fn matches_variable(&self, variable: &Variable, known: &Known<'_>) -> Option<Match> {
        let mut keys = Vec::new();
        let rest = fit(&self.parts, &variable.words, &mut keys, known)?;
        Some(Match {
            keys,
            rest: rest.to_vec(),
        })
    }

    /// Counts the letters to change until `name` fits, map keys aside; none where it is far off.
    pub fn distance(&self, name: &Name<'_>) -> Option<usize> {
        if name.segments.len() != self.parts.len() {
            return None;
        }
        let pairs = self.parts.iter().zip(&name.segments);
        pairs
            .map(|(part, segment)| match part {
                Part::Literal(text) => {
                    distance_up_to(text.len().div_ceil(3), text, &segment.uniform)
                }
                Part::Key => Some(0),
            })
            .sum()
    }

    /// Returns the map keys `name` has where it is as long as the pattern.
    pub fn keys_of(&self, name: &Name<'_>) -> Vec<String> {
        let pairs = self.parts.iter().zip(&name.segments);
        let keys = pairs.filter(|(part, _)| matches!(part, Part::Key));
        keys.map(|(_, segment)| segment.written.to_owned())
            .collect()
    }
}

/// A map key as it is written in a name: in brackets if it holds a dot or bracket.
fn bracketed(key: &str) -> String {
    if key.contains(['.', '[', ']']) {
        format!("[{key}]")
    } else {
        key.to_owned()
    }
}

/// Lists the map keys that exist at a place, given the map keys before it.
pub type Known<'a> = dyn Fn(&[String]) -> Vec<String> + 'a;

/// The name of an environment variable: `_` for `.`, dashes dropped, case without meaning.
#[derive(Clone, Debug)]
pub struct Variable {
    /// The words of the name, in lower case.
    pub words: Vec<String>,
}

impl Variable {
    /// Cuts `text` at its underscores, and at dots and brackets as in a setting's own name.
    pub fn parse(text: &str) -> Self {
        let parts = text.split(['_', '.', '[']);
        let words = parts.map(|part| uniform(part.trim_end_matches(']')));
        Self {
            words: words.collect(),
        }
    }
}

/// Returns the name of the environment variable that overrides `name`.
pub fn variable_for(name: &str) -> String {
    name.chars()
        .filter_map(|c| match c {
            '.' | '[' => Some('_'),
            '-' | '_' | ']' => None,
            other => Some(other.to_ascii_uppercase()),
        })
        .collect()
}

/// Fits `words` to `parts`; a part may take several words, for an underscore may stand for a dash.
fn fit<'a>(
    parts: &[Part],
    words: &'a [String],
    keys: &mut Vec<String>,
    known: &Known<'_>,
) -> Option<&'a [String]> {
    let Some((part, later)) = parts.split_first() else {
        return Some(words);
    };
    let candidates = match part {
        Part::Literal(text) => vec![(text.clone(), None)],
        Part::Key => known(keys)
            .into_iter()
            .map(|key| (uniform(&key), Some(key)))
            .collect(),
    };
    for (text, key) in candidates {
        let Some(rest) = take(&text, words) else {
            continue;
        };
        let depth = keys.len();
        keys.extend(key);
        if let Some(rest) = fit(later, rest, keys, known) {
            return Some(rest);
        }
        keys.truncate(depth);
    }
    None
}

/// Takes as many words as make up `text`.
fn take<'a>(text: &str, words: &'a [String]) -> Option<&'a [String]> {
    let mut left = text;
    let mut rest = words;
    while !left.is_empty() {
        let (word, later) = rest.split_first()?;
        left = left.strip_prefix(word.as_str())?;
        rest = later;
    }
    Some(rest)
}

/// Counts the letters to insert, drop, change or swap between two words; `None` if they are more
/// than `most`. A word of any length costs little.
pub fn distance_up_to(most: usize, a: &str, b: &str) -> Option<usize> {
    // A character has at most four bytes.
    if a.len().abs_diff(b.len()) > most.saturating_mul(4) {
        return None;
    }
    Some(strsim::osa_distance(a, b)).filter(|distance| *distance <= most)
}
