//! Which parts of a text may be of a private key, and how such a text is shown.
//!
//! A key with a typo is still a key, so nothing here asks whether the text is well-formed. What
//! could be a part of one is left out, unless it is known to be public.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::ops::Range;

/// Texts that are known to be public, such as the coordinates of a key and its fingerprint.
#[derive(Clone, Debug, Default)]
pub struct Public(HashSet<String>);

impl Public {
    /// Adds `text`, which may be shown wherever it stands by itself.
    pub fn insert(&mut self, text: impl Into<String>) {
        self.0.insert(text.into());
    }

    fn has(&self, characters: &[char]) -> bool {
        !self.0.is_empty() && self.0.contains(&characters.iter().collect::<String>())
    }
}

impl Extend<String> for Public {
    fn extend<I: IntoIterator<Item = String>>(&mut self, texts: I) {
        self.0.extend(texts);
    }
}

impl IntoIterator for Public {
    type Item = String;
    type IntoIter = std::collections::hash_set::IntoIter<String>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// Leaves out of `text` whatever may be a part of a private key or a token.
///
/// That is the member `d`; a run of base64 characters that is longer than a fingerprint, if it
/// does not look like a path or a name; the parts of a token; and in a text that has something of
/// a JWK, of PEM or of base64 in it every run of 12 characters and more that is not a plain word.
pub fn redact(text: &str) -> String {
    redact_except(text, &Public::default())
}

/// Redacts `text` as [`redact`] does, but leaves in what is known to be public.
pub fn redact_except(text: &str, public: &Public) -> String {
    if is_harmless(text) {
        return text.to_owned();
    }
    let characters: Vec<char> = text.chars().collect();
    let shown = pieces(&characters, &hidden(&characters, public));
    shown.into_iter().map(|(character, _)| character).collect()
}

/// Redacts the name of a setting: one without a dot that looks random is no name but a line of a
/// broken key.
pub fn redact_name(name: &str) -> String {
    if is_harmless(name) {
        return name.to_owned();
    }
    let characters: Vec<char> = name.chars().collect();
    let mut words = characters.chunk_by(|_, next| !next.is_ascii_uppercase());
    let mut is_camel_case = || words.all(|word| word.len() >= 3 && is_wordy(word));
    let all_base64 = characters.iter().all(|c| is_base64(*c) || *c == '=');
    if characters.len() >= TOKEN_PART && all_base64 && !is_path(&characters) && !is_camel_case() {
        return format!("«hidden, {} chars»", characters.len());
    }
    redact(name)
}

/// Quotes `text` from a file or peer for a message: escaped, at most 80 characters, redacted.
pub fn quote(text: &str) -> String {
    quote_except(text, &Public::default())
}

/// Quotes `text` as [`quote`] does, but leaves in what is known to be public.
pub fn quote_except(text: &str, public: &Public) -> String {
    let safe = redact_except(text, public);
    let mut characters = safe.chars();
    let mut quoted = String::from("`");
    for character in characters.by_ref().take(80) {
        if is_odd(character) {
            quoted.extend(character.escape_default());
        } else {
            quoted.push(character);
        }
    }
    quoted.push('`');
    if characters.next().is_some() {
        quoted.push('…');
    }
    quoted
}

/// Longer than any fingerprint (43) and any coordinate (43).
const LONG_RUN: usize = 44;

/// What is too short to be of use to anybody ends below this.
const SHORT_RUN: usize = 12;

/// The least length of each part of a token.
const TOKEN_PART: usize = 20;

/// What keys hold, in JSON, PEM and base64; the last but two are DER in base64.
const MARKS: [&str; 9] = [
    "kty",
    "crv",
    "\"d\"",
    "\",\"",
    "-----BEGIN",
    "eyJ",
    "MHcCAQ",
    "MIGHAg",
    "MIGTAg",
];

pub(super) fn is_odd(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Finds the parts of a line of a properties file that may be of a private key. The setting's name
/// and its value are two texts: a key in the value is no reason to hide words of the name.
pub(super) fn hidden_in_line(characters: &[char], public: &Public) -> Vec<Range<usize>> {
    let is_name = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '[' | ']');
    let blanks = characters.iter().take_while(|c| c.is_whitespace()).count();
    let rest = characters.iter().skip(blanks);
    let length = rest.take_while(|c| is_name(c)).count();
    let (name, value) = characters.split_at(blanks.saturating_add(length).min(characters.len()));
    // A key, even one with a dot too many, is no name.
    if name.iter().filter(|c| **c == '.').count() < 2 {
        return hidden(characters, public);
    }
    let mut found = hidden(name, public);
    let moved = |range: Range<usize>| {
        range.start.saturating_add(name.len())..range.end.saturating_add(name.len())
    };
    found.extend(hidden(value, public).into_iter().map(moved));
    found
}

/// Finds the parts of a text that may be of a private key or a token, in order.
fn hidden(characters: &[char], public: &Public) -> Vec<Range<usize>> {
    let runs: Vec<_> = runs(characters)
        .filter(|run| !public.has(part(characters, run)))
        .collect();
    let is_key = |run: &Range<usize>| run.len() >= LONG_RUN && !is_path(part(characters, run));
    let delicate = has_mark(characters) || runs.iter().any(is_key);
    let mut found = d_members(characters);
    for run in &runs {
        let (least, is_word): (_, fn(&[char]) -> bool) = match (delicate, run.len()) {
            (true, _) => (SHORT_RUN, is_plain),
            (false, LONG_RUN..) => (SHORT_RUN, is_wordy),
            (false, _) => continue,
        };
        let segments = segments(characters, run);
        found.extend(
            segments
                .filter(|segment| segment.len() >= least && !is_word(part(characters, segment))),
        );
    }
    found.extend(tokens(characters, &runs));
    found.sort_by_key(|range| range.start);
    found
}

/// Tells, at little cost, that a text has no part of a key: most names in most files have not.
fn is_harmless(text: &str) -> bool {
    let long = |run: &[u8]| run.len() >= SHORT_RUN;
    let runs = text.as_bytes();
    !text.contains(':') && !runs.split(|b| !is_base64(char::from(*b))).any(long)
}

fn part<'a>(characters: &'a [char], range: &Range<usize>) -> &'a [char] {
    characters.get(range.clone()).unwrap_or_default()
}

fn is_base64(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '+' | '/' | '-' | '_')
}

/// Finds the longest runs of base64 characters, those of a path included.
fn runs(characters: &[char]) -> impl Iterator<Item = Range<usize>> {
    ranges(characters, 0, |c| is_base64(*c))
}

/// Cuts a run at its slashes.
fn segments(characters: &[char], run: &Range<usize>) -> impl Iterator<Item = Range<usize>> {
    ranges(part(characters, run), run.start, |c| *c != '/')
}

fn ranges(
    characters: &[char],
    offset: usize,
    belongs: fn(&char) -> bool,
) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0_usize;
    std::iter::from_fn(move || {
        let rest = characters.get(at..)?;
        let start = at.saturating_add(rest.iter().position(belongs)?);
        let rest = characters.get(start..)?;
        let length = rest.iter().take_while(|c| belongs(c)).count();
        at = start.saturating_add(length);
        Some(start.saturating_add(offset)..at.saturating_add(offset))
    })
}

/// Tells whether a text has something of a key in it. A brace after `$` is of a placeholder.
fn has_mark(characters: &[char]) -> bool {
    let object = |pair: &[char]| matches!(pair, [before, '{'] if *before != '$');
    let text: String = characters.iter().collect();
    characters.first() == Some(&'{')
        || characters.windows(2).any(object)
        || MARKS.iter().any(|mark| text.contains(mark))
}

fn is_path(characters: &[char]) -> bool {
    let mut segments = characters.split(|c| *c == '/');
    segments.all(|segment| segment.len() < SHORT_RUN || is_wordy(segment))
}

/// Tells whether these are words, such as `check-connected` or `MY_KEY1`, and not random.
fn is_wordy(characters: &[char]) -> bool {
    let mut words = characters.split(|c| matches!(c, '-' | '_' | '+'));
    words.all(|word| {
        let digits = word.iter().rev().take_while(|c| c.is_ascii_digit()).count();
        let letters = word.get(..word.len().saturating_sub(digits));
        let letters = letters.unwrap_or_default();
        let tail = letters.get(1..).unwrap_or_default();
        let one_case = letters.iter().all(char::is_ascii_uppercase)
            || tail.iter().all(char::is_ascii_lowercase)
                && letters.iter().all(char::is_ascii_alphabetic);
        one_case && digits <= 4 && letters.len() <= 20
    })
}

/// Tells whether these are words of one case without a digit, such as `check-connected`.
fn is_plain(characters: &[char]) -> bool {
    let lower = |c: &char| c.is_ascii_lowercase() || *c == '-';
    let upper = |c: &char| c.is_ascii_uppercase() || *c == '_';
    is_wordy(characters) && (characters.iter().all(lower) || characters.iter().all(upper))
}

/// Finds the parts of tokens: three long runs with a dot between them.
fn tokens(characters: &[char], runs: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for parts in runs.windows(3) {
        let [a, b, c] = parts else { continue };
        let joined = |left: &Range<usize>, right: &Range<usize>| {
            characters.get(left.end) == Some(&'.') && right.start == left.end.saturating_add(1)
        };
        let long = parts.iter().all(|run| run.len() >= TOKEN_PART);
        let words = parts.iter().all(|run| is_path(part(characters, run)));
        if long && !words && joined(a, b) && joined(b, c) {
            found.extend(parts.iter().cloned());
        }
    }
    found
}

/// Finds the values of members named `d`, also where quotes are missing or escaped.
fn d_members(characters: &[char]) -> Vec<Range<usize>> {
    let is_filler = |c: &char| c.is_whitespace() || matches!(c, '"' | '\'' | '\\');
    let mut found = Vec::new();
    for (at, pair) in characters.windows(2).enumerate() {
        let [before, 'd'] = pair else { continue };
        if before.is_alphanumeric() || matches!(before, '-' | '_' | '.' | '+' | '/') {
            continue;
        }
        let rest = characters.get(at.saturating_add(2)..).unwrap_or_default();
        let gap = rest.iter().take_while(|c| is_filler(c)).count();
        if rest.get(gap) != Some(&':') {
            continue;
        }
        let value = rest.get(gap.saturating_add(1)..).unwrap_or_default();
        let quote = value.iter().take_while(|c| is_filler(c)).count();
        let length = value
            .iter()
            .skip(quote)
            .take_while(|c| is_base64(**c) || **c == '=')
            .count();
        let start = at
            .saturating_add(gap)
            .saturating_add(quote)
            .saturating_add(3);
        if length > 0 {
            found.push(start..start.saturating_add(length));
        }
    }
    found
}

/// Replaces the hidden ranges, which are in order; every character keeps its place in the original.
pub(super) fn pieces(characters: &[char], hidden: &[Range<usize>]) -> Vec<(char, usize)> {
    let mut shown = Vec::with_capacity(characters.len());
    let mut at = 0;
    for range in hidden {
        let start = range.start.max(at);
        let end = range.end.min(characters.len());
        if start >= end {
            continue;
        }
        let open = characters.get(at..start).unwrap_or_default();
        shown.extend(open.iter().copied().zip(at..));
        let mut label = String::new();
        // Writing to a string cannot fail.
        let _ = write!(label, "«hidden, {} chars»", end.saturating_sub(start));
        shown.extend(label.chars().map(|character| (character, start)));
        at = end;
    }
    let open = characters.get(at..).unwrap_or_default();
    shown.extend(open.iter().copied().zip(at..));
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn member_d_is_left_out_however_it_is_quoted() {
        for (text, shown) in [
            (r#"{"d":"AbC-_1"}"#, r#"{"d":"«hidden, 6 chars»"}"#),
            (r#"{\"d\": \"AbC\"}"#, r#"{\"d\": \"«hidden, 3 chars»\"}"#),
            (
                r#"{kty":"EC",d":"AbC"}"#,
                r#"{kty":"EC",d":"«hidden, 3 chars»"}"#,
            ),
            (r#"{"kid":"AbC"}"#, r#"{"kid":"AbC"}"#),
        ] {
            assert_eq!(redact(text), shown);
        }
    }

    #[test]
    fn in_a_text_with_a_jwk_only_what_is_public_is_shown() {
        let mut public = Public::default();
        public.insert("Hbs53V5zC-1DjNf5RtJ1b");
        let text = r#"{"kty":"EC","x":"Hbs53V5zC-1DjNf5RtJ1b","d""ggCPO7pdSzQJY2MG9GLz"}"#;

        assert_eq!(
            redact_except(text, &public),
            r#"{"kty":"EC","x":"Hbs53V5zC-1DjNf5RtJ1b","d""«hidden, 20 chars»"}"#
        );
        assert!(!redact(text).contains("Hbs53V5zC"), "{}", redact(text));
    }

    #[test]
    fn tokens_are_left_out() {
        let token = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJkcGUtZGV2In.c2lnbmF0dXJlLW9mLXRlc3Q";
        assert_eq!(
            redact(&format!("unexpected argument '{token}' found")),
            "unexpected argument '«hidden, 20 chars».«hidden, 22 chars».«hidden, 23 chars»' found"
        );
        let other = "A1b2C3d4E5f6G7h8I9j0.A1b2C3d4E5f6G7h8I9j0.A1b2C3d4E5f6G7h8I9j0";
        assert!(!redact(other).contains("A1b2"), "{}", redact(other));
    }

    #[test]
    fn names_paths_and_fingerprints_are_shown() {
        for text in [
            "ATACCAMA_ONE_PLATFORM_DEPLOYMENTS_DPE_DEV_SECURITY_JWT_KEYS_KEY1_FINGERPRINT",
            "ataccama.one.dpm.registry.check-disconnected-interval-multiplier",
            "/home/somebody/projects/countersign/checkout/dpe/etc/application.properties",
            "/srv/deployments/2024/countersign-integration-tests/dpm-dev1/etc",
            "kHSzWkPiZKfSKAgdIkCdXfAAKs7x23jszQLkTOzQTEM",
            "73d1f349-d2a5-40c1-b017-c292f8f0bd05",
            "http://${HOST_NAME_2024A}:${server.port}",
        ] {
            assert_eq!(redact(text), text);
        }
    }

    #[test]
    fn quoted_text_is_short_and_has_no_control_characters() {
        assert_eq!(quote("a\u{1b}[2Jb"), "`a\\u{1b}[2Jb`");
        assert_eq!(quote(&"ab ".repeat(60)).chars().count(), 83);
    }
}
