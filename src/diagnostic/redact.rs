//! Finds the parts of a text that may belong to a private key or token, and hides them.
//!
//! A key with a typo is still a key, so the text does not have to be well-formed. Every part that
//! could belong to a key is hidden, unless it is known to be public.

use std::collections::HashSet;
use std::ops::Range;

/// Texts that are known to be public, such as the coordinates of a key and its fingerprint.
pub type Public = HashSet<String>;

/// Hides the parts of `text` that may belong to a private key or a token.
///
/// These are: the member `d`; a run of base64 characters that is longer than a fingerprint and is
/// not a path or a name; the parts of a token; and, in a text with anything of a JWK, of PEM or of
/// long base64, every run of 12 or more characters that is not a plain word.
pub fn redact(text: &str) -> String {
    redact_except(text, &Public::default())
}

/// Redacts `text` like [`redact`], but shows what is known to be public.
pub fn redact_except(text: &str, public: &Public) -> String {
    // Most texts cannot hold a part of a key, and this check is cheap.
    if !text.contains(':') && runs(text, is_base64).all(|run| run.len() < SHORT_RUN) {
        return text.to_owned();
    }
    let shown = pieces(text, &hidden(text, public));
    shown.into_iter().map(|(character, _)| character).collect()
}

/// Redacts the name of a setting, private scalars too. A name without a dot that looks random is a
/// line of a broken key.
pub fn redact_name(name: &str) -> String {
    let all_base64 = name.chars().all(|c| is_base64(c) || c == '=');
    if name.len() >= TOKEN_PART && all_base64 && !is_path(name) && !is_camel_case(name) {
        return label(name.len());
    }
    redact_word(name)
}

/// Redacts a name that a file gives to something, private scalars too.
pub fn redact_word(name: &str) -> String {
    let shown = redact(name);
    without_scalars(&shown, |_| false).unwrap_or(shown)
}

/// Quotes `text` from a file or peer for a message: escaped, at most 80 characters, redacted.
pub fn quote(text: &str) -> String {
    quote_except(text, &Public::default())
}

/// Quotes `text` as [`quote`] does, but leaves in what is known to be public.
pub fn quote_except(text: &str, public: &Public) -> String {
    let safe = redact_except(text, public);
    let beyond = safe.char_indices().nth(80);
    let most = beyond.map_or(safe.len(), |(at, _)| at);
    // A part of a scalar would not be known for one.
    let cut = scalars(&safe).find(|run| run.start < most && most < run.end);
    let end = cut.map_or(most, |run| run.start);
    let mut quoted = String::from("`");
    for character in part(&safe, &(0..end)).chars() {
        if misleads(character) {
            quoted.extend(character.escape_default());
        } else {
            quoted.push(character);
        }
    }
    quoted.push('`');
    if end < safe.len() {
        quoted.push('…');
    }
    quoted
}

/// The length of a private scalar, a fingerprint or a coordinate in base64url.
const SCALAR: usize = 43;

/// Longer than any fingerprint and any coordinate.
const LONG_RUN: usize = SCALAR + 1;

/// Shorter parts of a key are of no use.
const SHORT_RUN: usize = 12;

/// The least length of each part of a token.
const TOKEN_PART: usize = 20;

/// What keys hold, in JSON, PEM and base64; the last three are DER in base64.
const MARKS: [&str; 9] = [
    "kty", "crv", "\"d\"", "\",\"", "--BEGIN", "eyJ", "MHcCAQ", "MIGHAg", "MIGTAg",
];

/// Returns `true` if `c` breaks a line, moves the cursor, or reorders or hides its neighbours.
pub fn misleads(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

/// Escapes in `text` each character that [misleads], as `\u{…}`, but no line end and no tab.
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if misleads(c) && !matches!(c, '\n' | '\t') {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Finds the parts of a line of a properties file that may belong to a private key. The setting's
/// name and its value are two texts: a key in the value does not hide words of the name.
pub(super) fn hidden_in_line(line: &str, public: &Public) -> Vec<Range<usize>> {
    let rest = line
        .trim_start()
        .trim_start_matches(|c: char| c.is_ascii_alphanumeric() || ".-_[]".contains(c));
    let (name, value) = line.split_at(line.len().saturating_sub(rest.len()));
    // A key, even one with a dot too many, is not a name.
    if name.matches('.').count() < 2 {
        return hidden(line, public);
    }
    let mut found = hidden(name, public);
    let in_value = hidden(value, public);
    found.extend(in_value.iter().map(|at| shifted(at, name.len())));
    found
}

/// Finds the parts of a setting's name or value, as it is read, that may belong to a private key:
/// those that [`redact`] hides, and what has the form of a private scalar.
pub fn private_parts(text: &str, public: &Public) -> Vec<Range<usize>> {
    let mut found = hidden(text, public);
    found.extend(scalars(text).filter(|run| !public.contains(part(text, run))));
    found
}

/// Hides what has the form of a private scalar and is not public; `None` if nothing is hidden. The
/// text keeps its length.
pub fn without_scalars(text: &str, is_public: impl Fn(&str) -> bool) -> Option<String> {
    let mut shown = text.to_owned();
    let runs = scalars(text).filter_map(|run| text.get(run));
    for run in runs.filter(|run| !is_public(run)) {
        shown = shown.replace(run, &"·".repeat(run.len()));
    }
    (shown != text).then_some(shown)
}

/// Finds what has the form of a private scalar, which is also that of a fingerprint.
fn scalars(text: &str) -> impl Iterator<Item = Range<usize>> {
    runs(text, is_base64url).filter(|run| run.len() >= SCALAR && !is_wordy(part(text, run)))
}

/// Finds the parts of a text that may belong to a private key or a token, in order.
fn hidden(text: &str, public: &Public) -> Vec<Range<usize>> {
    let runs: Vec<_> = runs(text, is_base64)
        .filter(|run| !public.contains(part(text, run)))
        .collect();
    let mut long = runs.iter().filter(|run| run.len() >= LONG_RUN);
    let mut found = d_members(text);
    if has_mark(text) || long.any(|run| !is_path(part(text, run))) {
        for run in &runs {
            let segments =
                self::runs(part(text, run), |c| c != '/').map(|at| shifted(&at, run.start));
            found.extend(segments.filter(|at| at.len() >= SHORT_RUN && !is_plain(part(text, at))));
        }
    }
    found.extend(tokens(text, &runs));
    found.sort_by_key(|range| range.start);
    found
}

fn part<'a>(text: &'a str, range: &Range<usize>) -> &'a str {
    text.get(range.clone()).unwrap_or_default()
}

fn shifted(range: &Range<usize>, by: usize) -> Range<usize> {
    range.start.saturating_add(by)..range.end.saturating_add(by)
}

fn is_base64(character: char) -> bool {
    is_base64url(character) || matches!(character, '+' | '/')
}

fn is_base64url(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '_')
}

/// Finds the longest runs of characters that `belongs` accepts.
fn runs(text: &str, belongs: fn(char) -> bool) -> impl Iterator<Item = Range<usize>> {
    let mut end = 0_usize;
    let pieces = text.split_inclusive(move |c| !belongs(c));
    let runs = pieces.map(move |piece| {
        let start = end;
        end = start.saturating_add(piece.len());
        let run = piece.trim_end_matches(|c| !belongs(c));
        start..start.saturating_add(run.len())
    });
    runs.filter(|run| !run.is_empty())
}

/// Returns `true` if a text has anything of a key in it. A brace after `$` belongs to a
/// placeholder.
fn has_mark(text: &str) -> bool {
    let mut before_braces = text.rsplit('{').skip(1);
    before_braces.any(|before| !before.ends_with('$'))
        || MARKS.iter().any(|mark| text.contains(mark))
}

fn is_path(text: &str) -> bool {
    let mut segments = text.split('/');
    segments.all(|segment| segment.len() < SHORT_RUN || is_wordy(segment))
}

/// Returns `true` for words such as `check-connected` or `MY_KEY1`, and `false` for random text.
fn is_wordy(text: &str) -> bool {
    text.split(['-', '_', '+']).all(|word| {
        let letters = word.trim_end_matches(|c: char| c.is_ascii_digit());
        let lower = letters.trim_start_matches(|c: char| c.is_ascii_uppercase());
        let is_one_case = lower.is_empty()
            || letters.len().saturating_sub(lower.len()) <= 1
                && lower.bytes().all(|byte| byte.is_ascii_lowercase());
        is_one_case && word.len().saturating_sub(letters.len()) <= 4 && letters.len() <= 20
    })
}

/// Returns `true` for words of one case without a digit, such as `check-connected`.
fn is_plain(text: &str) -> bool {
    let mut bytes = text.bytes();
    let is_lower = bytes.all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    let is_upper = text
        .bytes()
        .all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    is_wordy(text) && (is_lower || is_upper)
}

/// Returns `true` for words such as `serverPort`, each of three or more letters.
fn is_camel_case(text: &str) -> bool {
    let starts = text.match_indices(|c: char| c.is_ascii_uppercase());
    let mut word_start = 0;
    let mut words = starts.map(|(at, _)| at).chain([text.len()]);
    words.all(|end| {
        let word = part(text, &(word_start..end));
        word_start = end;
        end == 0 || word.len() >= 3 && is_wordy(word)
    })
}

/// Finds the parts of tokens: three long runs with a dot between them.
fn tokens(text: &str, runs: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for parts in runs.windows(3) {
        let are_long = parts.iter().all(|run| run.len() >= TOKEN_PART);
        let are_words = parts.iter().all(|run| is_path(part(text, run)));
        let are_joined = parts.is_sorted_by(|a, b| part(text, &(a.end..b.start)) == ".");
        if are_long && !are_words && are_joined {
            found.extend(parts.iter().cloned());
        }
    }
    found
}

/// Finds the values of members named `d`, even if quotes are missing or escaped.
fn d_members(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for (at, name) in text.match_indices('d') {
        let (before, member) = text.split_at(at);
        let after = member.strip_prefix(name).unwrap_or_default();
        let is_name = before.ends_with(|c: char| !is_base64(c) && !c.is_alphanumeric() && c != '.');
        let Some(assigned) = after.trim_start_matches(is_filler).strip_prefix(':') else {
            continue;
        };
        let value = assigned.trim_start_matches(is_filler);
        let mut places = value.char_indices();
        // A letter may be written as `\u0041`.
        let after = places.find(|(at, c)| {
            let is_escape = value.get(*at..).is_some_and(|rest| rest.starts_with("\\u"));
            !is_base64(*c) && *c != '=' && !is_escape
        });
        let length = after.map_or(value.len(), |(at, _)| at);
        let start = text.len().saturating_sub(value.len());
        let end = start.saturating_add(length);
        if is_name && start < end {
            found.push(start..end);
        }
    }
    found
}

/// Returns `true` for what may stand around a name or before a value.
fn is_filler(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | '\\')
}

fn label(characters: usize) -> String {
    format!("«hidden, {characters} chars»")
}

/// Replaces the hidden ranges, which are in order. Every character comes with its place in `text`.
pub(super) fn pieces(text: &str, hidden: &[Range<usize>]) -> Vec<(char, usize)> {
    let mut shown = Vec::with_capacity(text.len());
    let mut at = 0;
    for range in hidden.iter().chain([&(text.len()..text.len())]) {
        let start = range.start.max(at);
        let open = part(text, &(at..start)).char_indices();
        shown.extend(open.map(|(place, character)| (character, place.saturating_add(at))));
        let secret = part(text, &(start..range.end.max(start)));
        if !secret.is_empty() {
            let instead = label(secret.chars().count());
            shown.extend(instead.chars().map(|character| (character, start)));
        }
        at = start.max(range.end);
    }
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
            (
                r#"{"d":"\u0041b\u0043","x":1}"#,
                r#"{"d":"\«hidden, 12 chars»","x":1}"#,
            ),
        ] {
            assert_eq!(redact(text), shown);
        }
    }

    #[test]
    fn in_a_text_with_a_jwk_only_what_is_public_is_shown() {
        let mut public = Public::default();
        public.insert("Hbs53V5zC-1DjNf5RtJ1b".to_owned());
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
            "/home/someone/projects/countersign/checkout/dpe/etc/application.properties",
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
